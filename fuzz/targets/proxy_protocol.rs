//! The header of the PROXY protocol, versions 1 and 2, at the start of a connection.
//!
//! Bytes behind a header change nothing, each byte of it is needed, and what is wrong once stays wrong. The addresses,
//! written again, are those that were read.

#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use topnext::proxy_protocol::{Addresses, MAX_V1, MAX_V2, Progress, parse};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    let len = match whole {
        Ok(Progress::Complete(header)) => {
            assert!((1..=data.len().min(MAX_V2)).contains(&header.len));
            assert_eq!(parse(&data[..header.len]), whole);
            if let Some(addresses) = header.addresses {
                check(addresses, &data[..header.len]);
            }
            header.len
        }
        Ok(Progress::Incomplete) => {
            assert!(data.len() < MAX_V2);
            data.len() + 1
        }
        Err(_) => data.len() + 1,
    };
    let mut wrong = None;
    for end in 0..len.min(data.len() + 1) {
        match parse(&data[..end]) {
            Ok(Progress::Incomplete) => assert!(wrong.is_none(), "right again at {end}"),
            Ok(Progress::Complete(header)) => panic!("{header:?} in {end} bytes"),
            Err(reason) => wrong = wrong.or(Some(reason)),
        }
    }
    assert!(wrong.is_none() || whole.is_err());
});

fn check(addresses: Addresses, header: &[u8]) {
    let Addresses { source, destination } = addresses;
    assert_eq!(source.is_ipv4(), destination.is_ipv4());
    if header.starts_with(b"PROXY") {
        assert!(header.len() <= MAX_V1);
        let words: Vec<&str> = str::from_utf8(header).unwrap().trim_end().split(' ').collect();
        let kind = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        // An IPv6 address can be written in several ways.
        let ip = |word: &str| word.parse::<IpAddr>();
        assert_eq!((words.len(), words[1]), (6, kind));
        assert_eq!((ip(words[2]), ip(words[3])), (Ok(source.ip()), Ok(destination.ip())));
        assert_eq!((words[4], words[5]), (&*source.port().to_string(), &*destination.port().to_string()));
        return;
    }
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    assert!(header[16..].starts_with(&bytes));
}
