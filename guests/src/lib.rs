//! Guest recipes.
