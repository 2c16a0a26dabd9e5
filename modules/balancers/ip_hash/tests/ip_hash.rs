//! The balancer in the author's kit.

use topnext_ip_hash::IpHash;
use topnext_module_api::testing::{self, FirstAvailable};

fn ip_hash() -> IpHash {
    testing::module("").expect("no configuration")
}

#[test]
fn a_network_keeps_its_peer() {
    let mut balancer = ip_hash();
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1), ("c", 1)]);
    // 4040 is the hash of 127.0.0, and 4040 % 3 is 2.
    for client in ["127.0.0.1", "127.0.0.2", "127.0.0.255"] {
        assert_eq!(test.count(3, client), [0, 0, 3], "{client}");
    }
}

#[test]
fn clients_spread_by_weight() {
    let mut balancer = ip_hash();
    let test = testing::balancer(&mut balancer, &[("a", 3), ("b", 1)]);
    let mut counts = [0; 2];
    for i in 0..1000 {
        let client = format!("10.{}.{}.1", i % 250, i / 250);
        counts[test.select(&client).expect("a peer")] += 1;
    }
    assert!((700..800).contains(&counts[0]), "{counts:?}");
}

#[test]
fn all_of_an_ipv6_address_counts() {
    let mut balancer = ip_hash();
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1)]);
    let peers: Vec<Option<usize>> = (1..20).map(|i| test.select(&format!("2001:db8::{i}"))).collect();
    assert!(peers.contains(&Some(0)) && peers.contains(&Some(1)), "{peers:?}");
    assert_eq!(peers[0], test.select("2001:db8::1"));
}

#[test]
fn moves_on_when_the_peer_fails_and_comes_back() {
    let mut balancer = ip_hash();
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1), ("c", 1)]);
    let home = test.select("127.0.0.1");
    let request = test.choose("127.0.0.1");
    assert_eq!(request.get(), home);
    let other = request.get();
    assert!(other.is_some() && other != home);
    drop(request);
    assert_eq!(test.select("127.0.0.1"), home);
}

#[test]
fn delegates_after_20_tries() {
    let (mut balancer, mut last) = (ip_hash(), FirstAvailable);
    // The share of the one peer that is left is too small for 20 tries to find it.
    let peers = [("a", 1), ("b", 1_000_000), ("c", 1_000_000)];
    let test = testing::balancer(&mut balancer, &peers).then(&mut last);
    test.set_down(1, true);
    test.set_down(2, true);
    assert_eq!(test.select("192.0.2.1"), Some(0));
    test.set_down(0, true);
    assert_eq!(test.select("192.0.2.1"), None);
}

#[test]
fn a_unix_socket_has_a_peer_too() {
    let mut balancer = ip_hash();
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1)]);
    let first = test.select("unix:");
    assert!(first.is_some());
    assert_eq!(test.select("unix:"), first);
}

#[test]
fn keeps_the_contract_of_a_balancer() {
    let (mut balancer, mut last) = (ip_hash(), FirstAvailable);
    let test = testing::balancer(&mut balancer, &[("a", 3), ("b", 1), ("c", 1)]).then(&mut last);
    test.check(&["127.0.0.1", "192.0.2.1", "2001:db8::1", "a unix socket"]);
}
