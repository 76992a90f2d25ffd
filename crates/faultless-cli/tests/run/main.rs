//! `faultless run` against a stand-in for QEMU: a shell script per test that behaves as a guest would.
//!
//! What is judged is everything but the kernel: streams, events, exit codes, messages, the end of the process.

mod fake;

use std::io::{Read, Write};
use std::process::Stdio;

use fake::{BOOT, Fake, exit};

#[test]
fn output_and_status_are_the_programs() {
    let fake = Fake::new(&format!("{BOOT} printf 'hello\\n\\001\\377'; {}; exit 33", exit("3", "null", "{}")));
    let done = fake.run(&[], b"");
    assert_eq!(done.stdout, b"hello\n\x01\xff");
    assert_eq!(done.code, Some(3), "{}", done.stderr);
}

#[test]
fn a_signal_shows_as_in_a_shell() {
    let fake = Fake::new(&format!("{BOOT} {}; exit 33", exit("0", "11", "{}")));
    assert_eq!(fake.run(&[], b"").code, Some(139));
    let fake = Fake::new(&format!("{BOOT} {}; exit 33", exit("0", "9", "{}")));
    let done = fake.run(&["--memory", "128M"], b"");
    assert_eq!(done.code, Some(137));
    assert!(done.stderr.contains("128 MiB of memory ran out: use a larger --memory"), "{}", done.stderr);
}

#[test]
fn the_report_follows_the_output() {
    let report = r#"{"forks":1234,"frames":{"leaked":0}}"#;
    let fake = Fake::new(&format!("{BOOT} echo out; {}; exit 33", exit("0", "null", report)));
    let done = fake.run(&[], b"");
    assert_eq!(done.code, Some(0));
    assert_eq!(
        done.stderr,
        format!("\nmemory report of {}\n  forks     1,234\n  frames\n    leaked      0\n", fake.program())
    );
    assert_eq!(fake.run(&["--no-report"], b"").stderr, "");
}

#[test]
fn json_is_one_document_for_people_and_machines() {
    let fake = Fake::new(&format!("{BOOT} {}; exit 33", exit("7", "null", r#"{"forks":2}"#)));
    let file = fake.at("report.json");
    let done = fake.run(&["--json", "--report", &file], b"");
    assert_eq!(done.code, Some(7));
    let document: serde_json::Value = serde_json::from_str(&done.stderr).expect("JSON");
    assert_eq!(document["exit_code"], 7);
    assert_eq!(document["report"]["forks"], 2);
    assert_eq!(document["boot"]["cpus"], 1);
    assert_eq!(document["machine"]["accelerator"], "tcg");
    assert_eq!(std::fs::read_to_string(file).expect("written"), done.stderr);
}

#[test]
fn input_waits_for_the_kernel_and_is_framed() {
    // `ab DLE c` becomes seven bytes with the doubled escape and the end of input.
    let script = format!("sleep 0.2; {BOOT} head -c 7 | od -An -tx1; {}; exit 33", exit("0", "null", "{}"));
    let done = Fake::new(&script).run(&[], b"ab\x10c");
    assert_eq!(done.text().trim(), "61 62 10 10 63 10 45");
}

#[test]
fn no_input_is_an_end_of_input() {
    let script = format!("{BOOT} head -c 2 | od -An -c; {}; exit 33", exit("0", "null", "{}"));
    let done = Fake::new(&script).run(&[], b"");
    assert_eq!(done.text().trim(), "020   E");
}

#[test]
fn the_archive_holds_program_and_manifest() {
    let fake = Fake::new(&format!("cp \"$initrd\" \"$0.cpio\"; {BOOT} {}; exit 33", exit("0", "null", "{}")));
    let text = fake.at("extra.txt");
    std::fs::write(&text, "contents").expect("write");
    let file = format!("{text}:/data/");
    let done = fake.run(&["--file", &file, "--env", "A=b", "--cwd", "/data"], b"");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let bytes = std::fs::read(fake.at("qemu.cpio")).expect("copied");
    let members = fake::members(&bytes);
    let find = |name: &str| members.iter().find(|member| member.0 == name).map(|member| &member.1);
    assert_eq!(find("data/extra.txt").expect("the file"), b"contents");
    assert!(find(&fake.program()[1..]).is_some());
    let manifest = find(".faultless/manifest").expect("the manifest");
    let records: Vec<&str> = std::str::from_utf8(manifest).expect("text").split('\0').collect();
    let program = fake.program();
    assert_eq!(
        records,
        [
            "cwd=/data",
            &format!("exec={program}"),
            &format!("arg={program}"),
            "arg=--flag",
            "env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "env=HOME=/",
            "env=A=b",
            "report=1",
        ]
    );
}

#[test]
fn a_panic_is_shown() {
    let fake = Fake::new(&format!(
        "{BOOT} echo '{{\"event\":\"panic\",\"message\":\"frame 7 twice\"}}' > \"$events\"; exit 35"
    ));
    let done = fake.run(&[], b"");
    assert_eq!(done.code, Some(125));
    assert!(done.stderr.contains("the guest kernel panicked: frame 7 twice"), "{}", done.stderr);
    let done = fake.run(&["--json"], b"");
    let document: serde_json::Value = serde_json::from_str(&done.stderr).expect("JSON");
    assert_eq!(document["error"]["kind"], "panic");
}

#[test]
fn ends_that_are_no_ends_are_told_apart() {
    let cases = [
        ("exit 0", "triple fault) before it had booted"),
        ("$boot exit 0", "triple fault) while the program was running"),
        ("$boot exit 33", "an orderly end without its report"),
        ("$boot exit 35", "the kernel stopped with code 0x11"),
        ("$boot kill -9 $$", "QEMU was ended by signal 9"),
        (
            "echo 'no such board' >&2; exit 1",
            "QEMU gave up before the guest started (QEMU: exit status: 1):\n    no such board",
        ),
    ];
    for (script, expected) in cases {
        let done = Fake::new(&script.replace("$boot", BOOT)).run(&[], b"");
        assert_eq!(done.code, Some(125), "{script}");
        assert!(done.stderr.contains(expected), "{script}: {}", done.stderr);
    }
}

#[test]
fn a_hypervisor_that_gives_up_ends_the_run() {
    let done = Fake::new("echo 'KVM internal error. Suberror: 1' >&2; sleep 600").run(&[], b"");
    assert_eq!(done.code, Some(125));
    assert!(done.stderr.contains("hypervisor gave up:\n    KVM internal error"), "{}", done.stderr);
    assert!(done.stderr.contains("help: this host's KVM"), "{}", done.stderr);
}

#[test]
fn what_is_missing_is_named() {
    let fake = Fake::new("exit 33");
    let fails = |options: &[&str], code: i32, expected: &[&str]| {
        let done = fake.run(options, b"");
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        for text in expected {
            assert!(done.stderr.contains(text), "{}", done.stderr);
        }
    };
    fails(&["--qemu", "/none/qemu"], 125, &["QEMU is not installed", "apt-get install qemu-system-x86"]);
    fails(&["--kernel", "/none/kernel"], 125, &["kernel image was not found", "/none/kernel"]);
    fails(&["--kernel", "/bin/sh"], 125, &["/bin/sh is not an image of the kernel", "cargo xtask kernel"]);
    fails(&["--memory", "16M"], 125, &["16 MiB of memory are too few", "--memory 64M"]);
    fails(&["--file", "/none/file"], 125, &["cannot pack /none/file", "given with --file"]);
    fails(&["--file", "/none/file:rel"], 125, &["begin it with a slash: /none/file:/rel"]);
    fails(&["--root", "/none/root"], 125, &["cannot pack /none/root: No such file", "given with --root"]);
    fails(&["--root", "/dev/null"], 125, &["a directory is needed"]);
    let root = fake.at("");
    fails(&["--root", &root], 127, &[&format!("Looked for:\n    {root}"), "is /"]);
    fails(&["--initrd", "/none/initrd"], 125, &["/none/initrd cannot be packed"]);
}

#[test]
fn the_time_limit_ends_the_guest_and_its_children() {
    let fake = Fake::new(&format!("{BOOT} echo started; sleep 600 & echo $! > \"$0.pid\"; wait"));
    let done = fake.run(&["--timeout", "1s"], b"");
    assert_eq!(done.code, Some(124));
    assert_eq!(done.text(), "started\n");
    assert!(done.stderr.contains("not finished after 1s"), "{}", done.stderr);
    let pid = std::fs::read_to_string(fake.at("qemu.pid")).expect("written");
    fake::wait_until(|| !fake::alive(pid.trim()));
}

#[test]
fn an_interrupt_ends_the_guest() {
    let fake = Fake::new(&format!("{BOOT} echo started; sleep 600 & echo $! > \"$0.pid\"; echo ready; wait"));
    let mut child = fake::spawn(fake.command(&[]).stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut text = String::new();
    let mut output = child.stdout.take().expect("piped");
    while !text.ends_with("ready\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).expect("a byte");
        text.push(char::from(byte[0]));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
    let pid = std::fs::read_to_string(fake.at("qemu.pid")).expect("written");
    fake::wait_until(|| !fake::alive(pid.trim()));
}

#[test]
fn a_reader_that_leaves_ends_the_guest() {
    let fake = Fake::new(&format!("{BOOT} while :; do echo more; done"));
    let mut child = fake::spawn(fake.command(&[]).stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 5]).expect("a line");
    drop(output);
    assert_eq!(child.wait().expect("ended").code(), Some(141));
}

#[test]
fn a_terminal_is_raw_for_the_guest_and_itself_again_afterwards() {
    let script = format!("{BOOT} echo ready; head -c 3 | od -An -tx1; {}; exit 33", exit("0", "null", "{}"));
    let fake = Fake::new(&script);
    let (mut keys, screen) = fake::terminal();
    let before = rustix::termios::tcgetattr(&screen).expect("settings");
    let mut child = fake::spawn(fake.command(&[]).stdin(screen.try_clone().expect("a copy")).stdout(Stdio::piped()));
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 6]).expect("ready");
    fake::wait_until(|| {
        let now = rustix::termios::tcgetattr(&screen).expect("settings");
        !now.local_modes.contains(rustix::termios::LocalModes::ICANON)
    });
    // A line end arrives as the key sends it, and Ctrl-C as a byte.
    keys.write_all(b"a\r\x03").expect("typed");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("output");
    assert_eq!(text.trim(), "61 0d 03");
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    let after = rustix::termios::tcgetattr(&screen).expect("settings");
    assert_eq!(format!("{:?}", after.local_modes), format!("{:?}", before.local_modes));
    assert_eq!(format!("{:?}", after.input_modes), format!("{:?}", before.input_modes));
}

#[test]
fn two_interrupts_typed_in_a_terminal_end_the_guest() {
    let fake = Fake::new(&format!("{BOOT} cat > /dev/null"));
    let (mut keys, screen) = fake::terminal();
    let mut child = fake::spawn(fake.command(&[]).stdin(screen.try_clone().expect("a copy")).stdout(Stdio::null()));
    fake::wait_until(|| {
        let now = rustix::termios::tcgetattr(&screen).expect("settings");
        !now.local_modes.contains(rustix::termios::LocalModes::ICANON)
    });
    keys.write_all(b"\x03\x03").expect("typed");
    assert_eq!(child.wait().expect("ended").code(), Some(130));
}

#[test]
fn a_kill_that_nobody_can_catch_ends_the_guest_and_leaves_no_file() {
    let fake = Fake::new(&format!("{BOOT} echo $$ > \"$0.pid\"; echo ready; while :; do sleep 0.1; done"));
    let files = tempfile::tempdir().expect("temporary directory");
    let mut command = fake.command(&[]);
    command.env("TMPDIR", files.path());
    let mut child = fake::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 6]).expect("ready");
    assert_eq!(std::fs::read_dir(files.path()).expect("readable").count(), 0);
    child.kill().expect("killed");
    child.wait().expect("ended");
    let pid = std::fs::read_to_string(fake.at("qemu.pid")).expect("written");
    fake::wait_until(|| !fake::alive(pid.trim()));
}

#[test]
fn an_emulator_that_cannot_be_executed_is_named() {
    let fake = Fake::new("");
    std::fs::write(fake.at("qemu"), b"#!/none/interpreter\n").expect("write");
    let done = fake.run(&[], b"");
    assert_eq!(done.code, Some(125));
    assert!(done.stderr.contains("cannot be started: No such file"), "{}", done.stderr);
}

#[test]
fn a_full_device_is_no_reader_that_left() {
    let fake = Fake::new(&format!("{BOOT} echo more; sleep 600"));
    let full = std::fs::File::options().write(true).open("/dev/full").expect("the device");
    let mut command = fake.command(&[]);
    let child = fake::spawn(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()));
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(125));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("output cannot be written: No space left on device"), "{text}");
}
