//! Has the library's files use the primitives of `sync`, and leaves their unit tests out, as for loom.

fn main() {
    println!("cargo:rustc-cfg=mainstay_loom");
}
