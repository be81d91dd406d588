//! `fanfare bench`: each measurement, small, from the command to its figures. What they are worth as
//! figures is not judged here; that they are there, and that nothing was lost, is.

#![allow(clippy::unwrap_used)] // clippy knows the tests, not what they share

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use support::redis::RedisServer;
use support::{Server, command, eventually};

/// What every figure of a section is read by.
type Figures = Value;

/// Runs `fanfare bench` with a folder of its own for what it leaves lying about: nothing.
fn bench(arguments: &[&str]) -> Output {
    let scratch = TempDir::new().unwrap();
    let output = command()
        .arg("bench")
        .args(arguments)
        .arg("--scratch")
        .arg(scratch.path())
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(entries(scratch.path()), 0, "it left something behind");
    output
}

/// The object that it prints, of a measurement in which nothing went wrong.
#[track_caller]
fn sound(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json"]].concat());
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["sound"], true, "{report:#}");
    assert_eq!(report["failed_connections"], 0, "{report:#}");
    assert_eq!(report["unrecovered"], 0, "{report:#}");
    for fault in ["lost", "repeated", "out_of_order"] {
        assert_eq!(report["faults"][fault], 0, "{report:#}");
    }
    // Progress is for terminals.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    report
}

#[track_caller]
fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {:?} {said}", output.status)
    })
}

/// The figures of a section, each of which there has to be a sensible one of on both sides.
#[track_caller]
fn figures(report: &Value, section: usize, keys: &[&str]) -> Figures {
    let figures = &report["sections"][section]["figures"];
    for key in keys {
        for of in ["fanfare", "baseline", "ratio"] {
            let value = figures[key][of].as_f64();
            assert!(
                value.is_some_and(|value| value > 0.0 && value < 1e9),
                "{key} of {of}: {report:#}"
            );
        }
    }
    figures.clone()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn idle_sockets_are_weighed() {
    let report = sound(&["idle", "-n", "200", "--settle", "0.2", "-t", "0.2"]);
    let figures = figures(&report, 0, &["rss_mib", "rss_mib_empty"]);
    // A connection that costs nothing was not open; one that costs this much was not alone.
    let each = figures["rss_bytes_per_connection"]["fanfare"].as_f64();
    assert!(
        each.is_some_and(|bytes| (100.0..200_000.0).contains(&bytes)),
        "{report:#}"
    );
}

#[test]
fn clients_are_counted_in_and_come_back() {
    let report = sound(&["connect", "-n", "60", "--rounds", "2"]);
    let figures = figures(
        &report,
        0,
        &[
            "cpu_us_per_connection",
            "connections_per_second",
            "storm_seconds",
            "storm_cpu_us_per_client",
        ],
    );
    let rounds = figures["storm_seconds"]["fanfare_rounds"].as_array();
    assert_eq!(rounds.unwrap().len(), 2);
}

#[test]
fn deliveries_are_measured_at_a_rate_and_at_the_peak() {
    let report = sound(&[
        "fanout",
        "-n",
        "30",
        "-r",
        "50",
        "--saturate",
        "-w",
        "2,8",
        "-t",
        "0.3",
        "--rounds",
        "1",
        "--channels",
        "3",
        "--size",
        "200",
    ]);
    assert_eq!(report["sections"].as_array().unwrap().len(), 3);
    let keys = [
        "cpu_us_per_delivery",
        "deliveries_per_second",
        "latency_p50_ms",
        "latency_p99_ms",
        "server_cpu_percent",
        "client_cpu_percent",
    ];
    for section in 0..3 {
        figures(&report, section, &keys);
    }
    let many = [
        "fanout",
        "-n",
        "30",
        "--publishers",
        "4",
        "--saturate",
        "--quick",
        "-t",
        "0.3",
    ];
    figures(&sound(&many), 0, &keys);
    // 50 events a second over three channels of ten each; the last may be late.
    let paced_latency = figures(&report, 0, &["latency_p50_ms"]);
    // Events that were due were published then, not when the client happened to wake.
    let p50 = paced_latency["latency_p50_ms"]["baseline"].as_f64();
    assert!(p50.is_some_and(|ms| ms < 35.0), "{report:#}");
    let paced = figures(&report, 0, &[])["deliveries_per_second"]["fanfare"].as_f64();
    assert!(paced.is_some_and(|rate| rate <= 501.0), "{report:#}");
}

#[test]
fn publishing_stands_beside_the_disk() {
    let report = sound(&["publish", "-p", "1,8", "-t", "0.4"]);
    for section in 0..2 {
        let keys = ["publishes_per_second", "answer_p50_ms", "answer_p99_ms"];
        let figures = figures(&report, section, &keys);
        assert!(figures["cpu_us_per_publish"]["fanfare"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn subscribers_that_were_away_get_what_they_missed() {
    let report = sound(&["recover", "-n", "20", "-m", "70", "--channels", "4"]);
    let keys = ["seconds", "events_per_second", "cpu_us_per_event"];
    figures(&report, 0, &keys);
}

#[test]
fn what_others_notice_of_stalled_subscribers_is_shown_for_each_policy() {
    let small = ["-n", "20", "--stalled", "3", "-t", "1", "--rounds", "1"];
    // 2 MB for each, more than kernels hold.
    let report = sound(&[&["slow", "--size", "4096"], &small[..]].concat());
    for (section, closed) in [(0, 3.0), (1, 0.0), (2, 0.0)] {
        let keys = ["latency_p50_ms", "latency_p99_ms", "cpu_us_per_delivery"];
        let figures = figures(&report, section, &keys);
        assert_eq!(figures["stalled_closed"]["fanfare"], closed, "{report:#}");
        let dropped = figures["stalled_dropped"]["fanfare"].as_f64().unwrap();
        assert_eq!(dropped > 0.0, closed == 0.0, "{report:#}");
        for nothing in ["stalled_closed", "stalled_dropped"] {
            assert_eq!(figures[nothing]["baseline"], 0.0, "{report:#}");
        }
    }
    assert_ne!(
        bench(&["slow", "--target", "127.0.0.1:1"]).status.code(),
        Some(0)
    );
}

#[test]
fn what_others_notice_of_bad_sign_ins_is_shown() {
    let small = ["-n", "10", "-t", "0.6", "--rounds", "1"];
    let report = sound(&[&["attack", "--sign-ins", "1000"], &small[..]].concat());
    let keys = ["latency_p50_ms", "latency_p99_ms", "server_cpu_percent"];
    let figures = figures(&report, 0, &keys);
    let answered = figures["sign_ins_per_second"]["fanfare"].as_f64();
    assert!(answered.is_some_and(|rate| rate > 100.0), "{report:#}");
    assert_ne!(bench(&["attack", "--sign-ins", "0"]).status.code(), Some(0));
    // Whose attacker would not stir for an hour is over as soon.
    sound(&[&["attack", "--sign-ins", "0.02"], &small[..]].concat());
}

#[test]
fn people_get_a_table() {
    let output = bench(&["connect", "-n", "10", "--rounds", "1", "--workers", "1"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    let heads = ["fanfare", "raw writes", "ratio"];
    let head = table.lines().nth(1).unwrap();
    assert!(heads.iter().all(|column| head.contains(column)), "{table}");
    assert!(table.contains("CPU per accepted connection"), "{table}");
    assert!(table.contains("no connection failed"), "{table}");
}

/// A running server's secrets, in files.
fn keys_of(server: &Server) -> (TempDir, String, String) {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        path.display().to_string()
    };
    let secret = file("secret", server.secret());
    let api_key = file("api-key", server.api_key());
    (folder, secret, api_key)
}

#[test]
fn a_running_server_is_measured_from_outside() {
    let server = Server::start(&[]);
    let (_folder, secret, api_key) = keys_of(&server);
    let target = server.addr().to_string();
    let with = |more: &[&str]| {
        let all = [
            "--target",
            &target,
            "--secret-file",
            &secret,
            "--api-key-file",
            &api_key,
        ];
        sound(
            &[
                &["fanout", "-n", "20", "--quick", "-t", "0.3"],
                &all[..],
                more,
            ]
            .concat(),
        )
    };
    let keys = ["deliveries_per_second", "latency_p50_ms"];
    let measured = figures(&with(&[]), 0, &keys);
    // Nobody said whose CPU it is.
    assert_eq!(measured["cpu_us_per_delivery"]["fanfare"], Value::Null);
    let pid = server.pid().as_raw_nonzero().to_string();
    figures(&with(&["--server-pid", &pid]), 0, &["cpu_us_per_delivery"]);
}

#[test]
fn connections_that_fail_are_told_by_the_exit_code() {
    let server = Server::start(&[("limits.connections", "7")]);
    let (_folder, secret, api_key) = keys_of(&server);
    let target = server.addr().to_string();
    let output = bench(&[
        "connect",
        "-n",
        "10",
        "--rounds",
        "1",
        "--json",
        "--target",
        &target,
        "--secret-file",
        &secret,
        "--api-key-file",
        &api_key,
    ]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(3), "{report:#}");
    assert_eq!(report["sound"], false);
    assert!(
        report["failed_connections"].as_u64().unwrap() >= 3,
        "{report:#}"
    );
    let why = report["first_failure"].as_str().unwrap();
    assert!(why.contains("503"), "{why}");
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_reason() {
    let server = Server::start(&[]);
    let (_folder, secret, api_key) = keys_of(&server);
    let keys = ["--secret-file", &secret, "--api-key-file", &api_key];
    let refusals: [(&[&str], i32, &str); 5] = [
        (&["--target", "192.0.2.1:80"], 1, "--allow-remote"),
        (&["--target", "127.0.0.1:1"], 1, "/ready does not answer"),
        (
            &["--target", "127.0.0.1:1", "--server-cpu", "0"],
            2,
            "--server-cpu",
        ),
        (&["-t", "0"], 2, "--target"),
        (&["--target", "127.0.0.1:1", "-t", "-1"], 2, "-1"),
    ];
    for (arguments, code, why) in refusals {
        let output = bench(&[&["fanout"], arguments, &keys].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(why), "{arguments:?}: {said}");
    }
    let output = bench(&["idle", "--set", "limits.queue_bytes=much"]);
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn an_interrupt_leaves_neither_folder_nor_server() {
    let scratch = TempDir::new().unwrap();
    let mut process = Interrupted(
        command()
            .args(["bench", "idle", "-n", "5", "--settle", "600", "--scratch"])
            .arg(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let patience = Duration::from_secs(30);
    let servers = || {
        let me = process.0.id();
        let children = fs::read_to_string(format!("/proc/{me}/task/{me}/children"));
        let children = children.unwrap_or_default();
        children
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    eventually("its server", patience, || !servers().is_empty());
    let server = servers().remove(0);
    kill_process(Pid::from_child(&process.0), Signal::INT).unwrap();
    assert_eq!(process.0.wait().unwrap().code(), Some(130));
    assert_eq!(entries(scratch.path()), 0);
    eventually("the end of its server", patience, || {
        !Path::new("/proc").join(&server).exists()
    });
}

/// Ends with the test, whatever came of it.
struct Interrupted(Child);

impl Drop for Interrupted {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn two_nodes_on_one_redis_are_weighed_against_one() {
    let small = ["-n", "40", "-t", "0.3", "--rounds", "1"];
    let loads = ["-r", "50", "--saturate"];
    let report = sound(&[&["nodes"], &small[..], &loads].concat());
    for section in 0..2 {
        let keys = [
            "deliveries_per_second",
            "cpu_us_per_delivery",
            "redis_cpu_us_per_delivery",
            "redis_cpu_us_per_publish",
            "answer_p50_ms",
            "answer_p99_ms",
            "latency_p50_ms",
            "latency_p99_ms",
        ];
        let figures = figures(&report, section, &keys);
        // However many nodes listen.
        for of in ["fanfare", "baseline"] {
            assert_eq!(figures["redis_calls_per_publish"][of], 1.0, "{report:#}");
        }
    }
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let on_it = ["--nodes", "3", "-r", "50", "--redis", &url];
    sound(&[&["nodes"], &small[..], &on_it].concat());
    assert_ne!(redis.command(&["DBSIZE"]), ":0\r\n", "it was used");
    for nonsense in [
        ["--redis", "redis://127.0.0.1:1"],
        ["--redis", "nonsense"],
        ["--nodes", "1"],
        ["--target", "127.0.0.1:1"],
    ] {
        let output = bench(&[&["nodes"], &small[..], &nonsense].concat());
        assert_ne!(output.status.code(), Some(0), "{nonsense:?}");
        assert!(!output.stderr.is_empty());
    }
}
