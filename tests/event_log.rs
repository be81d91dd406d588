//! The event log over days, restarts and broken disks.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use fanfare::clock::Clock;
use fanfare::event_log::{Data, EventLog, Kind};

/// 2026-11-23T04:05:06.789Z
const MONDAY: u64 = 1_795_406_706_789;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn say(log: &EventLog, message: &str) {
    let data = Data {
        message: Some(message),
        ..Data::default()
    };
    log.record(Kind::Server, &data);
}

/// Waits for what other threads do; a deadline, not a pause.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within ten seconds: {what}");
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn gunzip(path: &Path) -> String {
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn lines(text: &str) -> Vec<serde_json::Value> {
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn days_restarts_and_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("a/logs");
    let clock = Clock::manual(MONDAY);
    let (log, guard) = EventLog::open(&logs, 3, clock.clone()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // The umask of whoever runs the tests may take away more, never add.
    assert_eq!(mode(&logs) & !0o750, 0);
    say(&log, "monday");
    log.record(
        Kind::ChannelSubscribe,
        &Data {
            user_id: Some("u1"),
            ip: Some("::1".parse().unwrap()),
            channel: Some("post_1"),
            ..Data::default()
        },
    );
    drop(guard);
    let monday = logs.join("ws-2026-11-23.log");
    assert_eq!(mode(&monday) & !0o640, 0);
    assert_eq!(
        fs::read_to_string(&monday).unwrap(),
        concat!(
            r#"{"timestamp":"2026-11-23T04:05:06.789Z","type":"server","data":{"message":"monday"}}"#,
            "\n",
            r#"{"timestamp":"2026-11-23T04:05:06.789Z","type":"channel_subscribe","data":{"userId":"u1","ip":"::1","channel":"post_1"}}"#,
            "\n"
        )
    );

    // What a crash, other programs and other people leave behind.
    fs::write(logs.join("ws-2026-11-22.log.gz.tmp"), "half").unwrap();
    fs::write(logs.join("ws-2026-11-22.log"), "{\"n\":1}\n").unwrap();
    fs::write(logs.join("ws-2026-11-20.log"), "old\n").unwrap();
    fs::write(logs.join("ws-2026-11-19.log.gz"), "older").unwrap();
    fs::write(logs.join("ws-2026-12-24.log"), "of a wrong clock\n").unwrap();
    for foreign in ["ws-notes.log", "ws-2026-11-01.log.bak", "nginx.log"] {
        fs::write(logs.join(foreign), "not ours").unwrap();
    }
    fs::create_dir(logs.join("ws-2026-11-02.log")).unwrap();
    // The process was killed in the middle of a line.
    fs::OpenOptions::new()
        .append(true)
        .open(&monday)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"torn"))
        .unwrap();

    let (log, guard) = EventLog::open(&logs, 3, clock.clone()).unwrap();
    say(&log, "monday again");
    let foreign = [
        "nginx.log",
        "ws-2026-11-01.log.bak",
        "ws-2026-11-02.log",
        "ws-2026-12-24.log",
        "ws-notes.log",
    ];
    let expect = |ours: &[&str]| {
        let mut expected: Vec<_> = ours
            .iter()
            .chain(&foreign)
            .map(|name| name.to_string())
            .collect();
        expected.sort();
        eventually(&format!("{expected:?} in {:?}", names(&logs)), || {
            names(&logs) == expected
        });
    };
    expect(&["ws-2026-11-22.log.gz", "ws-2026-11-23.log"]);
    assert_eq!(gunzip(&logs.join("ws-2026-11-22.log.gz")), "{\"n\":1}\n");
    assert_eq!(mode(&logs.join("ws-2026-11-22.log.gz")) & !0o640, 0);

    // Midnight, with a line right before and right after it.
    let until_midnight = Duration::from_millis(86_400_000 - MONDAY % 86_400_000);
    clock.advance(until_midnight - Duration::from_millis(1));
    say(&log, "last of monday");
    clock.advance(Duration::from_millis(1));
    say(&log, "first of tuesday");
    expect(&[
        "ws-2026-11-22.log.gz",
        "ws-2026-11-23.log.gz",
        "ws-2026-11-24.log",
    ]);
    let text = gunzip(&logs.join("ws-2026-11-23.log.gz"));
    let (before, after) = text.split_once("{\"torn\n").unwrap();
    assert_eq!(lines(before).len(), 2);
    let after = lines(after);
    assert_eq!(after[0]["data"]["message"], "monday again");
    assert_eq!(after[1]["data"]["message"], "last of monday");
    assert_eq!(after[1]["timestamp"], "2026-11-23T23:59:59.999Z");
    assert_eq!(after.len(), 2);

    for _ in 0..5 {
        clock.advance(DAY);
        say(&log, "another day");
    }
    expect(&[
        "ws-2026-11-27.log.gz",
        "ws-2026-11-28.log.gz",
        "ws-2026-11-29.log",
    ]);
    drop(guard);
    let today = fs::read_to_string(logs.join("ws-2026-11-29.log")).unwrap();
    assert_eq!(lines(&today).len(), 1);
    let figures = log.figures();
    assert_eq!((figures.dropped_lines, figures.io_errors), (0, 0));
    assert_eq!(figures.written_lines, 3 + 5);
    assert_eq!(
        fs::read_to_string(logs.join("ws-notes.log")).unwrap(),
        "not ours"
    );
}

#[test]
fn every_line_is_in_the_file_of_its_day_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let until_midnight = 86_400_000 - MONDAY % 86_400_000;
    let clock = Clock::manual(MONDAY + until_midnight - 1_000);
    let (log, guard) = EventLog::open(dir.path(), 9, clock.clone()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    clock.advance(Duration::from_millis(1));
                    say(&log, "x");
                }
            });
        }
    });
    drop(guard);
    let yesterday = dir.path().join("ws-2026-11-23.log.gz");
    eventually("yesterday is put away", || {
        yesterday.exists() && !dir.path().join("ws-2026-11-23.log").exists()
    });
    let today = fs::read_to_string(dir.path().join("ws-2026-11-24.log")).unwrap();
    let mut count = 0;
    let mut last = String::new();
    for (text, day) in [(gunzip(&yesterday), "2026-11-23"), (today, "2026-11-24")] {
        for line in lines(&text) {
            let timestamp = line["timestamp"].as_str().unwrap().to_string();
            assert!(timestamp.starts_with(day), "{timestamp} in {day}");
            assert!(last <= timestamp, "{last} before {timestamp}");
            last = timestamp;
            count += 1;
        }
    }
    assert_eq!(count, 4_000);
    assert_eq!(log.figures().written_lines, 4_000);
}

#[test]
fn a_file_that_is_moved_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, guard) = EventLog::open(dir.path(), 9, Clock::manual(MONDAY)).unwrap();
    let path = dir.path().join("ws-2026-11-23.log");
    say(&log, "one");
    eventually("the first line", || log.figures().written_lines == 1);
    fs::remove_file(&path).unwrap();
    say(&log, "two");
    drop(guard);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(lines(&text)[0]["data"]["message"], "two");
}

#[test]
fn a_directory_that_cannot_be_used_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(EventLog::open(&file.join("logs"), 9, Clock::manual(MONDAY)).is_err());
    fs::create_dir(dir.path().join("ws-2026-11-23.log")).unwrap();
    assert!(EventLog::open(dir.path(), 9, Clock::manual(MONDAY)).is_err());
}

#[test]
fn losses_are_counted_and_admitted_once_the_disk_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    let clock = Clock::manual(MONDAY);
    let (log, guard) = EventLog::open(&logs, 9, clock.clone()).unwrap();
    say(&log, "fine");
    eventually("the first line", || log.figures().written_lines == 1);
    // Root may write anywhere, but nobody opens a file in a directory that is gone.
    let away = dir.path().join("away");
    fs::rename(&logs, &away).unwrap();
    clock.advance(DAY);
    for _ in 0..7 {
        say(&log, "lost");
    }
    eventually("the losses", || log.figures().dropped_lines == 7);
    assert!(log.figures().io_errors >= 1);
    fs::rename(&away, &logs).unwrap();
    say(&log, "back");
    eventually("the line after", || log.figures().written_lines == 2);
    drop(guard);
    let text = fs::read_to_string(logs.join("ws-2026-11-24.log")).unwrap();
    let messages: Vec<_> = lines(&text)
        .iter()
        .map(|line| line["data"]["message"].as_str().unwrap().to_string())
        .collect();
    assert_eq!(messages, ["back", "dropped 7 lines"]);
}

#[test]
fn a_full_disk_tears_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(dir.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        println!("skipped: no small file system can be mounted here (needs root)");
        return;
    }
    let unmount = Unmount(dir.path());
    let ballast = dir.path().join("ballast");
    fs::write(&ballast, [0; 128 * 1024]).unwrap();
    let (log, guard) = EventLog::open(dir.path(), 9, Clock::manual(MONDAY)).unwrap();
    let long = "x".repeat(250);
    for _ in 0..2_000 {
        say(&log, &long);
    }
    eventually("every line has its fate", || {
        let figures = log.figures();
        figures.written_lines + figures.dropped_lines == 2_000
    });
    let full = log.figures();
    assert!(full.dropped_lines > 0 && full.written_lines > 0 && full.io_errors > 0);

    fs::remove_file(&ballast).unwrap();
    say(&log, "room again");
    drop(guard);
    // A short batch may have found room in between, and admitted what was lost until then.
    let (mut written, mut admitted) = (0, 0);
    let text = fs::read_to_string(dir.path().join("ws-2026-11-23.log")).unwrap();
    for line in lines(&text) {
        let message = line["data"]["message"].as_str().unwrap();
        match message.strip_prefix("dropped ") {
            Some(rest) => admitted += rest.strip_suffix(" lines").unwrap().parse::<u64>().unwrap(),
            None => written += 1,
        }
    }
    assert_eq!(written, full.written_lines + 1);
    assert_eq!(admitted, full.dropped_lines);
    assert!(text.contains("room again"));
    drop(unmount);
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0)
            .status();
    }
}
