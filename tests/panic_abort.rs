//! The limit of P3 that a build sets: with `panic = "abort"`, a panic ends the process before any executor can act. What is
//! no panic is contained as ever.
//!
//! A small program is built here with that setting, on the library as it was built for this test.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

const PROGRAM: &str = r#"
fn main() {
    let ex = mainstay::Executor::new();
    ex.set_exception_handler(|_, report| eprintln!("told: {}", report.exception().unwrap().message()));
    ex.spawn_fallible(async { Err::<(), _>("an error") }).detach();
    ex.run_until_stalled();
    eprintln!("it goes on");
    ex.spawn(async { panic!("a panic") }).detach();
    ex.run_until_stalled();
    eprintln!("never reached");
}
"#;

/// The library's files beside this test, the newest first: builds with other features lie there too.
fn libraries(deps: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(deps)
        .expect("the folder of this test")
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libmainstay-") && name.ends_with(".rlib")
        })
        .map(|entry| {
            let made = entry.metadata().and_then(|file| file.modified());
            (made.expect("a time"), entry.path())
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

fn build(library: &Path, deps: &Path, source: &Path, program: &Path) -> Output {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "-Cpanic=abort", "--extern"])
        .arg(format!("mainstay={}", library.display()))
        .arg(format!("-Ldependency={}", deps.display()))
        .arg("-o")
        .args([program, source])
        .output()
        .expect("the compiler that has built this test")
}

#[test]
fn with_panic_abort_errors_are_told_and_a_panic_is_the_end() {
    let this = env::current_exe().expect("a test knows its own path");
    let deps = this.parent().expect("it lies in a folder");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("panic_abort.rs"), folder.join("panic_abort"));
    fs::write(&source, PROGRAM).expect("the target folder can be written to");
    let mut said = String::new();
    let built = libraries(deps).iter().any(|library| {
        let output = build(library, deps, &source, &program);
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        output.status.success()
    });
    assert!(built, "{said}");

    let output = Command::new(&program).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (before, after) = stderr.split_once("it goes on\n").expect("it goes on");
    assert_eq!(before, "told: an error\n");
    assert!(after.contains("a panic"), "the panic hook: {after}");
    assert!(
        !after.contains("told") && !after.contains("never reached"),
        "{after}"
    );
    assert!(!output.status.success());
    if cfg!(unix) {
        assert_eq!(output.status.code(), None, "a signal: {:?}", output.status);
    }
}
