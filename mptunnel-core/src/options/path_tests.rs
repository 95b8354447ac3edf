// SPDX-License-Identifier: BSD-2-Clause
//! Which words describe a path, and what is said about others.

use proptest::prelude::*;

use super::*;

#[test]
fn all_words_are_read_in_any_order_between_blanks_or_commas() {
    let text = "rotate=off mtu=1400,name=lte rate-down=50 rate=0.5 role=backup\tcost=7, weight=3 mark=0x10 src=10.0.0.1 \
                if=wwan0 to=bridge1:4000";

    let spec: PathSpec = text.parse().unwrap();

    assert_eq!(
        spec,
        PathSpec {
            to: Some(HostPort::new("bridge1", 4000).unwrap()),
            interface: Some("wwan0".into()),
            source: Some([10, 0, 0, 1].into()),
            mark: Some(16),
            weight: 3,
            role: PathRole::Backup,
            rate: PathRate::Mbit(0.5),
            rate_down: PathRate::Mbit(50.0),
            cost: Some(7),
            name: Some("lte".into()),
            mtu: Some(1400),
            rotate: false,
        }
    );
    assert_eq!(
        spec.to_string(),
        "to=bridge1:4000 if=wwan0 src=10.0.0.1 mark=16 weight=3 role=backup rate=0.5 \
         rate-down=50 cost=7 name=lte mtu=1400 rotate=off"
    );
    assert_eq!(spec.to_string().parse(), Ok(spec));
}

#[test]
fn what_is_not_said_is_the_default_and_is_not_printed() {
    let spec: PathSpec = "  ".parse().unwrap();

    assert_eq!(spec, PathSpec::default());
    assert_eq!(spec.to_string(), "");
    assert_eq!("weight=1 role=active rotate=on".parse(), Ok(PathSpec::default()));
}

#[test]
fn every_word_has_an_effect_and_round_trips_at_the_ends_of_its_range() {
    for text in [
        "to=[fe80::1%eth0]:1",
        "if=a",
        "if=abcdefghijklmno",
        "src=::1",
        "mark=0",
        "mark=4294967295",
        "weight=2",
        "weight=65535",
        "role=backup",
        "rate=0.001",
        "rate=1000000",
        "rate-down=0.001",
        "rate-down=1000000",
        "cost=0",
        "cost=255",
        "name=ä=#1",
        "mtu=576",
        "mtu=65535",
        "rotate=off",
    ] {
        let spec: PathSpec = text.parse().unwrap();
        assert_ne!(spec, PathSpec::default(), "{text}");
        assert_eq!(spec.to_string(), text);
    }
}

/// A word that is set alone is not split at commas; what is shown of the path is.
#[test]
fn a_word_set_alone_is_shown_as_it_can_be_read_or_is_refused() {
    for word in PATH_WORDS {
        for value in ["a,b", "a,weight=9", "a b", ",", "h,:1", "[fe80::1%a,b]:1", "[fe80::1%a b]:1"]
        {
            let mut spec = PathSpec::default();
            if spec.set_word(word.key, value).is_ok() {
                assert_eq!(spec.to_string().parse().as_ref(), Ok(&spec), "{}={value}", word.key);
            }
        }
    }
}

#[test]
fn values_out_of_range_or_of_another_form_are_refused_with_what_was_expected() {
    for text in [
        "if=",
        "if=abcdefghijklmnop",
        "if=a/b",
        "src=",
        "src=eth0",
        "src=10.0.0.256",
        "mark=-1",
        "mark=4294967296",
        "mark=0x",
        "mark=0x+1",
        "weight=0",
        "weight=65536",
        "weight=",
        "weight=1.5",
        "role=",
        "role=Backup",
        "rate=0",
        "rate=0.0009",
        "rate=1000001",
        "rate=nan",
        "rate=inf",
        "rate=1e3",
        "rate=-1",
        "rate=",
        "rate-down=0",
        "rate-down=1000001",
        "rate-down=1e3",
        "rate-down=",
        "cost=-1",
        "cost=256",
        "cost=",
        "name=",
        "mtu=575",
        "mtu=65536",
        "mtu=0",
    ] {
        let error = text.parse::<PathSpec>().unwrap_err();
        let key = text.split('=').next().unwrap();
        let word = PATH_WORDS.iter().find(|word| word.key == key).unwrap();
        assert_eq!(error.to_string(), format!("{text}: expected {}", word.expected));
    }
    let long = format!("name={}", "x".repeat(65));
    assert!(long.parse::<PathSpec>().is_err());
    assert!(long[..69].parse::<PathSpec>().is_ok());
}

#[test]
fn a_bad_place_says_what_is_wrong_with_it() {
    let error = "to=fd00::1:4000".parse::<PathSpec>().unwrap_err();

    assert!(error.to_string().starts_with("to=fd00::1:4000: "), "{error}");
    assert!(error.to_string().contains("needs brackets"), "{error}");
}

#[test]
fn an_unknown_word_brings_the_nearest_or_all_known_ones() {
    let error = |text: &str| text.parse::<PathSpec>().unwrap_err().to_string();

    assert_eq!(error("wieght=3"), "unknown word \"wieght=3\": did you mean \"weight=\"?");
    assert_eq!(error("weight"), "unknown word \"weight\": did you mean \"weight=\"?");
    assert_eq!(error("#x"), "unknown word \"#x\": a comment needs a line of its own");
    assert_eq!(
        error("banana=3"),
        "unknown word \"banana=3\": expected one of to= if= src= mark= weight= role= rate= \
         rate-down= cost= name= mtu= rotate="
    );
}

#[test]
fn a_word_given_twice_is_refused() {
    let error = "if=a weight=2 if=b".parse::<PathSpec>().unwrap_err();

    assert_eq!(error.to_string(), "if= is given twice: keep one of \"a\" and \"b\"");
}

#[test]
fn addresses_of_different_families_cannot_meet() {
    let error = "to=[::1]:4000 src=10.0.0.1".parse::<PathSpec>().unwrap_err();

    assert_eq!(
        error.to_string(),
        "src=10.0.0.1 cannot reach [::1]:4000: one is IPv4, the other IPv6"
    );
    assert!("to=bridge1:4000 src=10.0.0.1".parse::<PathSpec>().is_ok());
    assert!("to=10.0.0.2:4000 src=10.0.0.1".parse::<PathSpec>().is_ok());
}

#[test]
fn paths_without_a_name_are_called_after_where_they_go() {
    let spec = |text: &str| text.parse::<PathSpec>().unwrap();
    let home = HostPort::new("server", 1).unwrap();
    let mut paths = [
        spec("to=a:1 if=x"),
        spec("to=a:1 if=y"),
        spec("to=b:1 name=a:1#2"),
        spec("to=b:1"),
        spec("if=z"),
    ];

    name_paths(&mut paths, Some(&home));

    let names: Vec<_> = paths.iter().map(|path| path.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a:1", "a:1#3", "a:1#2", "b:1", "server:1"]);
}

fn any_rate() -> impl Strategy<Value = PathRate> {
    prop_oneof![
        Just(PathRate::Unknown),
        Just(PathRate::Auto),
        (0.001f64..=1_000_000.0).prop_map(PathRate::Mbit),
    ]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = text.parse::<PathSpec>();
    }

    #[test]
    fn what_is_read_is_printed_so_that_it_reads_back(
        rate in any_rate(),
        rate_down in any_rate(),
        mark: Option<u32>,
        weight in 1u32..=65_535,
        cost: Option<u8>,
        rotate: bool,
        mtu in proptest::option::of(576u16..),
        source: Option<std::net::IpAddr>,
        name in proptest::option::of("[^ ,\\p{C}\\p{Z}]{1,16}"),
        interface in proptest::option::of("[a-z0-9.]{1,15}"),
        backup: bool,
    ) {
        let role = if backup { PathRole::Backup } else { PathRole::Active };
        let to = HostPort::new("bridge1.example", 4000).ok();
        let spec = PathSpec {
            to, interface, source, mark, weight, role, rate, rate_down, cost, name, mtu, rotate,
        };

        prop_assert_eq!(spec.to_string().parse(), Ok(spec));
    }
}

#[test]
fn a_path_that_was_named_after_where_it_went_is_named_after_where_it_goes() {
    let [old, new]: [HostPort; 2] =
        ["a.example:1", "[2001:db8::1]:2"].map(|to| to.parse().unwrap());
    let renamed =
        |name: &str, taken: &[&str]| renamed_after(name, &old, &new, |n| !taken.contains(&n));
    for (name, taken, expected) in [
        ("a.example:1", &[] as &[&str], Some("[2001:db8::1]:2")),
        ("a.example:1#3", &["[2001:db8::1]:2"], Some("[2001:db8::1]:2#2")),
        ("a.example:1%wwan0", &[], Some("[2001:db8::1]:2%wwan0")),
        ("a.example:10", &[], None),
        ("lte", &[], None),
    ] {
        assert_eq!(renamed(name, taken).as_deref(), expected, "{name}");
    }
}
