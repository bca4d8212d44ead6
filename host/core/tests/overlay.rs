//! What an operator believes of its own doings while its watch is late, case by case.

use jiff::Timestamp;
use stoker_api::BusyProbe;
use stoker_core::pool::RemovalReason::Surplus;
use stoker_core::pool::{Memory, Overlay};
use stoker_core::{Phase, PodView};
use stoker_sim::pods::{at, busy, pod, ready};
use stoker_sim::{Look, Says, Spec, look};

/// What an operator sees at a moment of pods that the watch shows.
fn sees(overlay: &mut Overlay, shown: &[PodView], seconds: i64) -> Vec<(Option<u32>, bool)> {
    let pods = overlay.see(shown.to_vec(), |_| false, at(seconds));
    pods.iter().map(|p| (p.slot, p.terminating)).collect()
}

fn spec(idle: u32, maximum: u32) -> Spec {
    Spec { idle, maximum, ..Spec::default() }
}

/// One look by the formula at what the watch shows.
fn plans(memory: &mut Memory, shown: &[PodView], spec: Spec, now: Timestamp) -> Look {
    let pods = memory.see(shown.to_vec(), |_| false, now);
    look(pods, &BusyProbe::default(), false, &Says::Nothing, spec, memory, now)
}

#[test]
fn a_pod_made_is_seen_until_the_watch_shows_it_or_that_it_went() {
    let mut overlay = Overlay::default();
    overlay.made(pod(1, at(0)), at(0));
    assert_eq!(sees(&mut overlay, &[ready(0, at(0))], 1), [(Some(0), false), (Some(1), false)]);
    assert_eq!(overlay.wake_at(at(1)), Some(at(30)));
    assert_eq!(sees(&mut overlay, &[pod(1, at(0))], 2), [(Some(1), false)]);
    assert_eq!(sees(&mut overlay, &[], 3), [], "the watch showed it, and shows it no longer");
    overlay.made(pod(2, at(4)), at(4));
    assert_eq!(overlay.see(vec![], |uid| uid == "uid-2", at(5)), [], "the watch told that it went");
    assert_eq!((overlay.wake_at(at(5)), overlay.tried().count()), (None, 0));
}

#[test]
fn a_namesake_that_the_watch_shows_is_not_seen_twice() {
    let mut overlay = Overlay::default();
    overlay.made(pod(1, at(0)), at(0));
    let namesake = PodView { uid: "another".to_owned(), ..pod(1, at(1)) };
    assert_eq!(sees(&mut overlay, &[namesake], 2), [(Some(1), false)]);
}

#[test]
fn i2_one_that_was_made_is_seen_beside_a_namesake_that_has_ended() {
    let mut overlay = Overlay::default();
    // The name was free when it was made: the watch shows late what is gone, and that holds no slot where it is a Job.
    let ended = PodView { uid: "ended".to_owned(), phase: Phase::Failed, ..pod(1, at(0)) };
    overlay.made(pod(1, at(1)), at(1));
    assert_eq!(sees(&mut overlay, &[ended], 2), [(Some(1), false), (Some(1), false)]);
    assert_eq!(sees(&mut overlay, &[pod(1, at(1))], 3), [(Some(1), false)]);
}

#[test]
fn a_pod_removed_is_seen_terminating_until_the_watch_knows_or_for_thirty_seconds() {
    let mut overlay = Overlay::default();
    let shown = [ready(0, at(0)), ready(1, at(0))];
    overlay.removed("uid-0", at(10));
    assert_eq!(sees(&mut overlay, &shown, 39), [(Some(0), true), (Some(1), false)]);
    assert_eq!(
        sees(&mut overlay, &shown, 40),
        [(Some(0), false), (Some(1), false)],
        "it is tried again then"
    );
    overlay.removed("uid-0", at(40));
    assert_eq!(sees(&mut overlay, &shown[1..], 41), [(Some(1), false)]);
    assert_eq!(overlay.wake_at(at(41)), None);
}

#[test]
fn a_pod_that_vanished_unseen_is_acted_on_once() {
    let mut overlay = Overlay::default();
    // Made, and gone before the watch could tell.
    overlay.made(pod(1, at(0)), at(0));
    assert!(overlay.gone("uid-1", at(1)), "nobody else asks for a look");
    assert_eq!(sees(&mut overlay, &[], 2), []);
    assert_eq!(
        sees(&mut overlay, &[pod(1, at(0))], 2),
        [(Some(1), true)],
        "the watch tells late how it came"
    );
    assert_eq!(sees(&mut overlay, &[], 2), []);
    // Made, removed, and never shown.
    overlay.made(pod(1, at(2)), at(2));
    overlay.removed("uid-1", at(3));
    assert_eq!(sees(&mut overlay, &[], 4), [(Some(1), true)]);
    // Gone, and the watch shows it still.
    assert!(!overlay.gone("uid-0", at(5)));
    assert_eq!(sees(&mut overlay, &[ready(0, at(0))], 6), [(Some(0), true), (Some(1), true)]);
}

#[test]
fn i2_a_slot_whose_creation_was_not_answered_is_tried_again_before_any_other() {
    let mut memory = Memory::default();
    let shown = [ready(0, at(0)), ready(1, at(0))];
    assert_eq!(plans(&mut memory, &shown, spec(3, 9), at(0)).creates(), [2]);
    memory.overlay.creation_unanswered(2, &pod(2, at(0)).name, at(0));
    // A lower slot has become free in the meantime.
    for later in [1, 29, 31, 4_000] {
        assert_eq!(plans(&mut memory, &shown[1..], spec(2, 9), at(later)).creates(), [2], "{later}");
    }
    assert_eq!(plans(&mut memory, &shown[1..], spec(3, 9), at(4_001)).creates(), [2, 0]);
    // It turned out to be there.
    memory.overlay.made(pod(2, at(0)), at(4_002));
    assert_eq!(plans(&mut memory, &shown[1..], spec(3, 9), at(4_003)).creates(), [0]);
}

#[test]
fn i2_a_pod_that_a_cut_off_watch_never_showed_is_looked_for_in_its_own_slot() {
    let mut memory = Memory::default();
    memory.overlay.made(pod(4, at(0)), at(0));
    assert_eq!(plans(&mut memory, &[], spec(1, 9), at(29)).creates(), [0u32; 0]);
    assert_eq!(plans(&mut memory, &[], spec(1, 9), at(30)).creates(), [4]);
}

#[test]
fn i2_slots_in_doubt_take_room_below_the_maximum_for_a_while() {
    let mut memory = Memory::default();
    let shown = [busy(7, at(0)), busy(8, at(0))];
    memory.overlay.creation_unanswered(0, &pod(0, at(0)).name, at(0));
    memory.overlay.creation_unanswered(1, &pod(1, at(0)).name, at(0));
    // Both may exist, so that the one that is tried might be the fourth.
    assert_eq!(plans(&mut memory, &shown, spec(2, 3), at(1)).creates(), [0u32; 0]);
    assert_eq!(plans(&mut memory, &shown, spec(2, 4), at(1)).creates(), [0, 1]);
    assert_eq!(plans(&mut memory, &shown, spec(9, 5), at(1)).creates(), [0, 1, 2]);
    assert_eq!(memory.overlay.wake_at(at(1)), Some(at(30)));
    assert_eq!(plans(&mut memory, &shown, spec(2, 3), at(30)).creates(), [0]);
}

#[test]
fn i3_while_a_removal_is_in_doubt_no_other_pod_goes() {
    let mut memory = Memory::default();
    let shown: Vec<PodView> = (0..4).map(|slot| ready(slot, at(slot.into()))).collect();
    assert_eq!(plans(&mut memory, &shown, spec(3, 9), at(10)).removals(), [(3, Surplus)]);
    memory.overlay.removal_unanswered("uid-3", "1", at(10));
    let fewer =
        |memory: &mut Memory, shown: &[PodView], now| plans(memory, shown, spec(1, 9), now).removals();
    assert_eq!(fewer(&mut memory, &shown, at(11)), [(3, Surplus)]);
    // It has turned busy: so it was not removed.
    let mut busy_now = shown.clone();
    busy_now[3] = PodView { resource_version: "2".to_owned(), ..busy(3, at(3)) };
    assert_eq!(fewer(&mut memory.clone(), &busy_now, at(12)), [(2, Surplus), (1, Surplus)]);
    // A watch that lags shows it as it was even before, which is no news.
    memory.overlay.removal_unanswered("uid-3", "10", at(12));
    busy_now[3] = PodView { resource_version: "9".to_owned(), ..ready(3, at(3)) };
    assert_eq!(fewer(&mut memory, &busy_now, at(13)), [(3, Surplus)]);
    // The watch goes on showing nothing.
    assert_eq!(fewer(&mut memory, &shown, at(42)), [(3, Surplus), (2, Surplus), (1, Surplus)]);
}

#[test]
fn delays_last_no_longer_when_the_clock_is_set_back() {
    let hour = 3600;
    let mut memory = Memory::default();
    let delayed = |idle| Spec { delay: 30, ..spec(idle, 9) };
    let shown: Vec<PodView> = (0..2).map(|slot| ready(slot, at(0))).collect();
    memory.overlay.made(ready(7, at(hour)), at(hour));
    assert_eq!(plans(&mut memory, &shown, delayed(3), at(hour)).plan.wake_at, None);
    assert_eq!(plans(&mut memory, &shown, delayed(2), at(hour + 1)).plan.wake_at, Some(at(hour + 31)));
    // The clock is set back by an hour, less a moment.
    assert_eq!(plans(&mut memory, &shown, delayed(2), at(5)).plan.wake_at, Some(at(35)));
    assert_eq!(memory.overlay.wake_at(at(5)), Some(at(34)));
    assert_eq!(plans(&mut memory, &shown, delayed(2), at(33)).removals(), []);
    let shown = [&shown[..], &[ready(7, at(hour))]].concat();
    assert_eq!(plans(&mut memory, &shown, delayed(2), at(35)).removals(), [(7, Surplus)]);
}
