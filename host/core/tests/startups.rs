//! How long a pool's pods took to start.

use stoker_core::PodView;
use stoker_core::pool::startups::{StartupTimes, Startups};
use stoker_sim::pods::{at, make_ready, pod, set};

fn started(number: u32, took: i64) -> PodView {
    let mut pod = pod(number, at(0));
    pod.uid = format!("pod-{number}");
    make_ready(&mut pod, at(took));
    pod
}

#[test]
fn each_start_counts_once_whatever_its_pod_does_later() {
    let mut startups = Startups::default();
    assert_eq!(startups.times(), StartupTimes::default());
    let mut pods = vec![started(0, 20), pod(1, at(0))];
    startups.note(&pods);
    set(&mut pods[0], "Ready", "False", at(30));
    startups.note(&pods);
    set(&mut pods[0], "Ready", "True", at(90));
    startups.note(&pods);
    assert_eq!(startups.times(), StartupTimes { samples: 1, p50: 20_000, p90: 20_000, p99: 20_000 });
}

#[test]
fn the_last_sixty_four_count() {
    let mut startups = Startups::default();
    for number in 1..=100 {
        startups.note(&[started(number, i64::from(number))]);
    }
    let times = startups.times();
    assert_eq!((times.samples, times.p50, times.p90, times.p99), (64, 68_000, 94_000, 100_000));
}
