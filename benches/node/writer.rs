//! Runs inside the containers of `logs`: writes lines of 100 bytes to standard output, as fast as it can.
//!
//! `writer <bytes of one write> <number of writes> <file>`; writes the time of the first write to the file, in
//! nanoseconds since 1970: container and host have the same clock.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::time::{SystemTime, UNIX_EPOCH};

const LINE: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (size, count): (usize, usize) = (args[1].parse().unwrap(), args[2].parse().unwrap());
    let mut block = vec![b'x'; size];
    block.iter_mut().skip(LINE - 1).step_by(LINE).for_each(|byte| *byte = b'\n');
    block[size - 1] = b'\n';
    // SAFETY: descriptor 1 is open and nothing else in this program uses it.
    let mut stdout = unsafe { File::from_raw_fd(1) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    std::fs::write(&args[3], now.to_string()).unwrap();
    for _ in 0..count {
        stdout.write_all(&block).unwrap();
    }
}
