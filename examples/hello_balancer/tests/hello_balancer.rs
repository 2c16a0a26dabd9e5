//! The balancer in the author's kit: `cargo test --features testing`.

use topnext_hello_balancer::HelloBalancer;
use topnext_module_api::testing::{self, BalancerTest, FirstAvailable};

const CLIENT: &str = "192.0.2.1";

#[test]
fn the_fewest_connections() {
    let (mut balancer, mut last) = (HelloBalancer, FirstAvailable);
    let test = testing::balancer(&mut balancer, &[("a", 1), ("b", 1), ("c", 1)]).then(&mut last);
    // All are equal: the next balancer chooses the first. Then there are two equals, and then one that is the least.
    let requests = [test.choose(CLIENT), test.choose(CLIENT), test.choose(CLIENT), test.choose(CLIENT)];
    assert_eq!(requests[0].get(), Some(0));
    assert_eq!(requests[1].get(), Some(0));
    test.set_down(1, true);
    assert_eq!(requests[2].get(), Some(2));
    test.set_down(1, false);
    assert_eq!(requests[3].get(), Some(1));
}

#[test]
fn keeps_the_contract_of_a_balancer() {
    let (mut balancer, mut last) = (HelloBalancer, FirstAvailable);
    testing::balancer(&mut balancer, &[("a", 1), ("b", 1), ("c", 1)]).then(&mut last).check(&[CLIENT, "2001:db8::1"]);
}

#[test]
fn backups_are_left_to_the_next_balancer() {
    let mut balancer = HelloBalancer;
    let test = BalancerTest::try_new(&mut balancer, &[("a", 1)], &[("b", 1)]).expect("valid");
    assert_eq!(test.select(CLIENT), Some(0));
    test.set_down(0, true);
    assert_eq!(test.select(CLIENT), None);
    let mut last = FirstAvailable;
    assert_eq!(test.then(&mut last).select(CLIENT), Some(1));
}
