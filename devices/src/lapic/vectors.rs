//! The 256-bit registers IRR, ISR and TMR. Intel SDM vol. 3A, 11.8.4.

/// One bit for each vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors([u32; 8]);

impl Vectors {
    /// The highest vector whose bit is set.
    pub fn highest(&self) -> Option<u8> {
        let i = self.0.iter().rposition(|word| *word != 0)?;
        Some((i as u32 * 32 + 31 - self.0[i].leading_zeros()) as u8)
    }

    pub fn set(&mut self, vector: u8, on: bool) {
        let bit = 1 << (vector & 31);
        let word = &mut self.0[usize::from(vector >> 5)];
        *word = if on { *word | bit } else { *word & !bit };
    }

    pub fn test(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 5)] & 1 << (vector & 31) != 0
    }

    /// The doubleword that the register at `offset` of the eight shows.
    pub fn word(&self, offset: u16) -> u32 {
        self.0[usize::from(offset >> 4 & 7)]
    }
}
