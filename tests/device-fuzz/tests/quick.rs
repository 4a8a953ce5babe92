//! A short run of every device fuzzer. One test: memory is counted for the whole process.

use ring3_device_fuzz::heap::Counting;
use ring3_device_fuzz::run;

#[global_allocator]
static HEAP: Counting = Counting::new();

/// Series for each target.
const SEEDS: u64 = 5;

#[test]
fn no_chip_panics_hangs_or_collects_memory() {
    let names = run::names();
    assert_eq!(names.len(), 20, "{names:?}");
    for name in names {
        for seed in 1..=SEEDS {
            if let Err(why) = run::series(name, seed, &HEAP, &|_| {}) {
                panic!("{why}");
            }
        }
    }
}
