#![no_main]

#[global_allocator]
static MEMORY: contd_fuzz::memory::Counted = contd_fuzz::memory::Counted;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    contd_fuzz::memory::bounded(data.len(), || contd_fuzz::flist_block::check(data));
});
