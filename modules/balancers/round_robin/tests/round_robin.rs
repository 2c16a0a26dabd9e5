//! The balancer in the author's kit.

use topnext_module_api::{
    Outcome,
    testing::{self, BalancerTest},
};
use topnext_round_robin::RoundRobin;

const CLIENT: &str = "192.0.2.1";

fn round_robin() -> RoundRobin {
    testing::module("").expect("no configuration")
}

#[test]
fn goes_round_by_weight() {
    let mut balancer = round_robin();
    let test = testing::balancer(&mut balancer, &[("a", 5), ("b", 1), ("c", 1)]);
    let chosen: Vec<usize> = (0..7).filter_map(|_| test.select(CLIENT)).collect();
    assert_eq!(chosen, [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(test.count(70, CLIENT), [50, 10, 10]);
}

#[test]
fn goes_on_to_the_next_peer_when_one_fails() {
    let mut balancer = round_robin();
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1), ("c", 1)]);
    let request = test.choose(CLIENT);
    assert_eq!([request.get(), request.get(), request.get()], [Some(0), Some(1), Some(2)]);
    assert_eq!(request.get(), None);
}

#[test]
fn a_failed_peer_is_spared_for_a_while() {
    let mut balancer = round_robin();
    let test = testing::balancer(&mut balancer, &[("a", 10), ("b", 10)]);
    let request = test.choose(CLIENT);
    assert_eq!(request.get(), Some(0));
    request.free(Outcome::Failed);
    let counts = test.count(10, CLIENT);
    assert!(counts[0] < counts[1] && counts[0] > 0, "{counts:?}");
    assert_eq!(test.count(20, CLIENT), [10, 10]);
}

#[test]
fn skips_peers_that_are_down_or_full() {
    let mut balancer = round_robin();
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1), ("c", 1)]);
    test.set_down(0, true);
    test.set_max_connections(1, 1);
    let (first, second) = (test.choose(CLIENT), test.choose(CLIENT));
    assert_eq!((first.get(), second.get()), (Some(1), Some(2)));
    assert_eq!(test.select(CLIENT), Some(2));
    drop(first);
    assert_eq!(test.count(4, CLIENT), [0, 2, 2]);
}

#[test]
fn backups_come_last() {
    let mut balancer = round_robin();
    let test = BalancerTest::try_new(&mut balancer, &[("a", 1)], &[("b", 1), ("c", 1)]).expect("valid");
    assert_eq!(test.count(5, CLIENT), [5, 0, 0]);
    test.set_failed(0, true);
    assert_eq!(test.count(4, CLIENT), [0, 2, 2]);
}

#[test]
fn a_single_peer() {
    let mut balancer = round_robin();
    let test = testing::balancer(&mut balancer, &[("a", 1)]);
    assert_eq!(test.count(3, CLIENT), [3]);
    test.set_down(0, true);
    assert_eq!(test.select(CLIENT), None);
}

#[test]
fn keeps_the_contract_of_a_balancer() {
    let mut balancer = round_robin();
    let peers = [("a", 5), ("b", 1), ("c", 1)];
    BalancerTest::try_new(&mut balancer, &peers, &[("d", 1)]).expect("valid").check(&[CLIENT, "2001:db8::1"]);
}
