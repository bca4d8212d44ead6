//! The schedules of Kubernetes: each line of `kubernetes.txt` holds here, too.
#![allow(clippy::unwrap_used)]

mod fixtures;

use jiff::Timestamp;
use stoker_cron::Schedule;

#[test]
fn schedules_name_the_instants_that_kubernetes_takes() {
    let lines: Vec<&str> =
        include_str!("kubernetes.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert!(lines.len() > 200);
    for line in lines {
        let [schedule, zone, after, expected] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}: not four parts");
        };
        let found = match Schedule::parse(schedule) {
            Err(_) => "error".to_owned(),
            Ok(schedule) => {
                let after: Timestamp = after.parse().unwrap();
                let next = schedule.next(after, &fixtures::zone(zone));
                next.map_or("none".to_owned(), |instant| instant.to_string())
            }
        };
        assert_eq!(found, expected, "{line}");
    }
}
