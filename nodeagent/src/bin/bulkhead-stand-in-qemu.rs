//! The stand-in for QEMU of the tests, for this package's own: see `tests/src/bin/stand-in-qemu.rs`.

#[path = "../../../tests/src/bin/stand-in-qemu.rs"]
#[allow(unreachable_pub, reason = "it is a program there")]
mod stand_in;

fn main() -> std::io::Result<()> {
    stand_in::main()
}
