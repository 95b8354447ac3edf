// SPDX-License-Identifier: BSD-2-Clause
//! Which files are read, which are refused, and in which words.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<ConfigFile, ConfigErrors> {
    ConfigFile::parse("client.conf", text.as_bytes(), Place::ClientProgram)
}

fn message(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn paths(text: &str) -> Vec<String> {
    parse(text).unwrap().paths.iter().map(|path| path.spec.to_string()).collect()
}

#[test]
fn a_classic_file_is_read_as_ever() {
    let text = "# bridges\n\nbridge1.example 4000\n\t 192.0.2.1\t \t4001  \n#192.0.2.2 4002\n";

    let config = parse(text).unwrap();

    assert_eq!(
        paths(text),
        [
            "to=bridge1.example:4000 name=bridge1.example:4000",
            "to=192.0.2.1:4001 name=192.0.2.1:4001",
        ]
    );
    assert_eq!(config.paths.iter().map(|path| path.line).collect::<Vec<_>>(), [3, 4]);
    assert!(config.options.is_empty());
}

#[test]
fn carriage_returns_blanks_a_byte_order_mark_and_a_missing_last_line_end_do_no_harm() {
    let text =
        "\u{feff}a 1\r\n   \r\n\t\n  # indented comment\r\nb 2 weight=3\r\nmtu = 1400\r\nc 3";

    assert_eq!(paths(text), ["to=a:1 name=a:1", "to=b:2 weight=3 name=b:2", "to=c:3 name=c:3"]);
    assert_eq!(parse(text).unwrap().options[0].value, "1400");
}

#[test]
fn paths_take_words_and_hosts_of_every_kind() {
    let text = "\
fd00::1 4000
[fd00::2] 4000
fe80::1%eth0 4000
bridge1.example 4000 if=wwan0 weight=3 role=backup name=lte
bridge2.example 4000 if=eth0,rate=20
to=[fd00::3]:4000 cost=2
";
    assert_eq!(
        paths(text),
        [
            "to=[fd00::1]:4000 name=[fd00::1]:4000",
            "to=[fd00::2]:4000 name=[fd00::2]:4000",
            "to=[fe80::1%eth0]:4000 name=[fe80::1%eth0]:4000",
            "to=bridge1.example:4000 if=wwan0 weight=3 role=backup name=lte",
            "to=bridge2.example:4000 if=eth0 rate=20 name=bridge2.example:4000",
            "to=[fd00::3]:4000 cost=2 name=[fd00::3]:4000",
        ]
    );
}

#[test]
fn the_second_path_to_the_same_place_gets_a_number() {
    assert_eq!(
        paths("a 1 if=x\na 1 if=y\na 1 if=z\n"),
        ["to=a:1 if=x name=a:1", "to=a:1 if=y name=a:1#2", "to=a:1 if=z name=a:1#3",]
    );
}

#[test]
fn options_override_what_was_set_and_keep_their_lines() {
    let mut settings = Settings::default();
    settings.set("window", "8192").unwrap();
    let config = parse("rekey-interval = 60s\nname=a b = c  \n\nmtu=1400\n").unwrap();

    config.apply(&mut settings);

    assert_eq!(settings.rekey_interval, Duration::from_secs(60));
    assert_eq!(settings.name.as_deref(), Some("a b = c"));
    assert_eq!((settings.mtu, settings.window), (1400, 8192));
    assert_eq!(config.options.iter().map(|option| option.line).collect::<Vec<_>>(), [1, 2, 4]);
}

#[test]
fn a_misspelt_word_is_told_with_file_line_word_and_remedy() {
    assert_eq!(
        message("\n\n\n\n\n\nbridge1 4000 wieght=3\n"),
        "client.conf:7: unknown word \"wieght=3\": did you mean \"weight=\"?"
    );
}

#[test]
fn all_errors_of_a_file_are_told_at_once() {
    let text = "\
bridge1 4000 wieght=3 role=spare
bridge2
widnow = 4096
bridge3 99999 mtu=1
window = 1
";
    assert_eq!(
        message(text),
        "\
client.conf:1: unknown word \"wieght=3\": did you mean \"weight=\"?
client.conf:1: role=spare: expected active or backup
client.conf:2: no port behind \"bridge2\": expected HOST PORT, such as bridge1.example 4000
client.conf:3: unknown option \"widnow\": did you mean \"window\"?
client.conf:4: port \"99999\": expected a number from 1 to 65535
client.conf:4: mtu=1: expected a whole number of bytes from 576 to 65535
client.conf:5: window = \"1\": expected a whole number from 4096 to 4194304 packets"
    );
}

#[test]
fn each_mistake_has_a_remedy() {
    for (text, expected) in [
        ("h 0", "port \"0\": expected a number from 1 to 65535"),
        ("h if=eth0", "no port behind \"h\": expected HOST PORT, such as bridge1.example 4000"),
        ("h:4000", "\"h:4000\": host and port stand apart: write \"h 4000\""),
        ("h:4000 if=eth0", "\"h:4000\": host and port stand apart: write \"h 4000\""),
        ("[::1]:4 if=lo", "\"[::1]:4\": host and port stand apart: write \"::1 4\""),
        ("10.0.0.256 4000", "\"10.0.0.256\" is neither an IP address nor a host name"),
        (
            "[::1 4000",
            "\"[::1\": expected an IPv6 address in the brackets, such as \
          [2001:db8::1]:4000",
        ),
        ("h 4000 # a comment", "unknown word \"#\": a comment needs a line of its own"),
        ("h 1 to=h:2", "to= is given twice: the line begins with host and port already"),
        ("::1 1 src=10.0.0.1", "src=10.0.0.1 cannot reach [::1]:1: one is IPv4, the other IPv6"),
        (
            "weight = 3",
            "weight is a word of a path: write it behind host and port, such as \
          bridge1.example 4000 weight=VALUE",
        ),
        ("key-file =", "key-file has no value: expected key-file = VALUE, or remove the line"),
        ("sessions = 3", "sessions is not an option of mpclient: it belongs to server"),
        ("= 3", "unknown option \"\""),
    ] {
        let errors = message(text);
        let first = errors.lines().next().unwrap();
        assert_eq!(first, format!("client.conf:1: {expected}"), "{text}");
    }
}

#[test]
fn a_key_file_in_place_of_the_configuration_is_told_without_the_key() {
    let key = "EJrbJhWobDcYPfole3HZH5VXW6cnX+YWKA29Csx8baY=";
    for text in [format!("{key}\n"), format!("# made today\n  {key} psk=file name=laptop\n")] {
        let errors = message(&text);
        assert!(errors.contains("this is a key, as a key file has it"), "{errors}");
        assert!(!errors.contains(&key[..8]), "{errors}");
    }
    // A public key belongs there.
    assert!(parse(&format!("peer-key = {key}\nh 4000\n")).is_ok());
}

#[test]
fn of_another_file_by_mistake_only_the_first_mistakes_are_told() {
    assert_eq!(message(&"h\n".repeat(MAX_ERRORS)).lines().count(), MAX_ERRORS);

    let errors = message(&"h\n".repeat(1000));
    assert_eq!(errors.lines().count(), MAX_ERRORS + 1);
    assert!(
        errors.ends_with(
            "client.conf:21: and more is wrong from here on: is this a configuration file?"
        ),
        "{errors}"
    );
}

#[test]
fn what_is_there_twice_is_told_with_both_lines() {
    assert_eq!(
        message("mtu = 1400\n\nmtu = 1400\n"),
        "client.conf:3: mtu is set already in line 1: remove one of the two"
    );
    assert_eq!(
        message("a 1 name=x\nb 1\nc 1 name=x\n"),
        "client.conf:3: the path of line 1 has the name \"x\" already: names must differ"
    );
}

#[test]
fn a_file_has_at_most_32_paths() {
    let lines = |n: usize| "a 1\n".repeat(n);

    assert_eq!(parse(&lines(MAX_PATHS)).unwrap().paths.len(), MAX_PATHS);
    assert_eq!(
        message(&lines(MAX_PATHS + 1)),
        "client.conf:33: more than 32 paths: remove this one or another one"
    );
}

#[test]
fn a_server_takes_options_but_no_paths() {
    let parse =
        |text: &str| ConfigFile::parse("server.conf", text.as_bytes(), Place::ServerProgram);

    assert_eq!(parse("sessions = 10\n").unwrap().options[0].key, "sessions");
    assert_eq!(
        parse("h 4000\n").unwrap_err().to_string(),
        "server.conf:1: a server has no paths of its own: this line belongs to the file of a client"
    );
    assert!(parse("listen = 3000\n").is_err());
}

#[test]
fn bytes_that_are_no_text_and_files_without_end_are_refused() {
    let parse = |bytes: &[u8]| {
        ConfigFile::parse("c", bytes, Place::ClientProgram).map_err(|e| e.to_string())
    };
    let limit = usize::try_from(MAX_FILE).unwrap();

    assert_eq!(parse(b"a 1\n\xff\xfe\n"), Err("c:2: this line is not UTF-8 text".to_owned()));
    assert_eq!(parse(&vec![b'\n'; limit]), Ok(ConfigFile::default()));
    assert_eq!(
        parse(&vec![b'\n'; limit + 1]),
        Err("c:1: the file is too large for a configuration file".to_owned())
    );
    let zero = ConfigFile::load(Path::new("/dev/zero"), Place::ClientProgram);
    assert!(zero.unwrap_err().to_string().contains("too large"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error =
        ConfigFile::load(Path::new("/nowhere/client.conf"), Place::ClientProgram).unwrap_err();

    assert_eq!(error.to_string(), "cannot read configuration file /nowhere/client.conf");
    assert!(std::error::Error::source(&error).is_some());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_with_a_message(bytes: Vec<u8>) {
        if let Err(errors) = ConfigFile::parse("c", &bytes, Place::ClientProgram) {
            prop_assert!(errors.to_string().starts_with("c:"));
        }
    }

    #[test]
    fn what_looks_like_a_file_is_read_or_refused_and_what_is_read_can_be_applied(
        text in "((to|mtu|name|#|[a-z0-9.:%-]{1,9}|\\[[a-f0-9:]{2,9}\\])\
                 [ =,:]{0,2}[a-z0-9:.]{0,6}\n?){0,8}",
        place in prop_oneof![Just(Place::ClientProgram), Just(Place::ServerProgram)],
    ) {
        if let Ok(config) = ConfigFile::parse("c", text.as_bytes(), place) {
            config.apply(&mut Settings::default());
            for path in &config.paths {
                prop_assert!(path.spec.to.is_some() && path.spec.name.is_some());
            }
        }
    }
}
