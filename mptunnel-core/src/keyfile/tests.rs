// SPDX-License-Identifier: BSD-2-Clause
//! What key files may look like, and what happens to those that look otherwise.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread;

use super::error::EntryProblem;
use super::*;

#[test]
fn a_created_key_reads_back_and_only_its_owner_can_read_it() {
    let dir = Scratch::new("create");
    let path = dir.0.join("psk");
    let key = generate().unwrap();

    create(&path, &key).unwrap();

    assert_eq!(read_key(&path, Privacy::Required).unwrap(), key);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_to_string(&path).unwrap().len(), KEY_CHARS + 1);
    assert_eq!(dir.names(), ["psk"], "no draft is left behind");
}

#[test]
fn an_existing_file_is_never_overwritten_not_even_a_dangling_link() {
    let dir = Scratch::new("exists");
    let path = dir.file("psk", "not a key", 0o600);
    let link = dir.0.join("link");
    symlink(dir.0.join("nowhere"), &link).unwrap();

    let error = create(&path, &[1; 32]).unwrap_err();
    let dangling = create(&link, &[1; 32]).unwrap_err();

    assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
    assert!(matches!(dangling, KeyFileError::Exists { .. }), "{dangling}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "not a key");
    assert_eq!(dir.names(), ["link", "psk"], "nothing was made on the way");
}

#[test]
fn of_many_that_create_the_same_file_one_succeeds_and_nobody_reads_half_a_key() {
    let dir = Scratch::new("race");
    let path = dir.0.join("psk");
    let start = std::sync::Barrier::new(8);

    let seen: Vec<(bool, Zeroizing<[u8; 32]>)> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=8)
            .map(|n| {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    start.wait();
                    let created = match create(path, &[n; 32]) {
                        Ok(()) => true,
                        Err(KeyFileError::Exists { .. }) => false,
                        Err(error) => panic!("{error}"),
                    };
                    (created, read_key(path, Privacy::Required).unwrap())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert_eq!(seen.iter().filter(|(created, _)| *created).count(), 1);
    assert!(seen.iter().all(|(_, key)| *key == seen[0].1));
    assert_eq!(dir.names(), ["psk"]);
}

#[test]
fn a_directory_is_made_for_its_owner_only() {
    let dir = Scratch::new("directory");
    let deep = dir.0.join("a/b");

    create_directory(&deep).unwrap();
    create_directory(&deep).unwrap();

    assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(dir.0.join("a")).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn creating_in_a_missing_directory_names_the_file() {
    let dir = Scratch::new("missing");

    let error = create(&dir.0.join("nowhere/psk"), &[1; 32]).unwrap_err();

    assert!(error.to_string().starts_with("cannot create key file "), "{error}");
    assert!(error.to_string().ends_with("/nowhere/psk"), "{error}");
}

#[test]
fn comments_blank_lines_and_carriage_returns_are_skipped() {
    let dir = Scratch::new("comments");
    let key = encode(&[3; 32]);
    let text = format!("# a comment\r\n\r\n   \n  {}  \r\n#end", key.as_str());
    let path = dir.file("psk", &text, 0o600);

    assert_eq!(*read_key(&path, Privacy::Required).unwrap(), [3; 32]);
}

#[test]
fn several_keys_are_a_list_but_not_one_key() {
    let dir = Scratch::new("several");
    let text = format!("{}\n# next\n{}\n", encode(&[1; 32]).as_str(), encode(&[2; 32]).as_str());
    let path = dir.file("psk", &text, 0o600);

    let keys = read_keys(&path, Privacy::Required).unwrap();
    let error = read_key(&path, Privacy::Required).unwrap_err();

    assert_eq!(keys.iter().map(|key| key[0]).collect::<Vec<_>>(), [1, 2]);
    assert!(error.to_string().ends_with("holds 2 keys where one is expected"), "{error}");
}

#[test]
fn a_file_that_others_can_read_or_write_is_refused_with_the_command_that_helps() {
    let dir = Scratch::new("modes");
    let key = encode(&[3; 32]);
    let path = dir.file("psk", &key, 0o600);
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();

        let error = read_key(&path, Privacy::Required).unwrap_err();

        let name = path.display();
        assert_eq!(
            error.to_string(),
            format!(
                "key file {name} is open to other users (mode {mode:04o}): run chmod 600 {name}"
            )
        );
        assert_eq!(*read_key(&path, Privacy::Ignored).unwrap(), [3; 32]);
    }
    for mode in [0o600, 0o400, 0o700] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(read_key(&path, Privacy::Required).is_ok(), "{mode:o}");
    }
}

#[test]
fn what_is_not_a_key_is_refused_with_its_line_and_not_repeated() {
    let dir = Scratch::new("malformed");
    let good = encode(&[3; 32]);
    let cut = &good[..43];
    let long = format!("{}=", good.as_str());
    // The last character before the padding carries two bits that must be zero.
    let loose = format!("{}N=", &encode(&[0xff; 32])[..42]);
    let url = encode(&[0xff; 32]).replace('/', "_");
    let text = format!("{} x", good.as_str());
    for bad in ["secret", cut, &long, &loose, &url, &text, &"A".repeat(44), &"=".repeat(44)] {
        let path = dir.file("psk", &format!("# comment\n{bad}\n"), 0o600);

        let error = read_key(&path, Privacy::Required).unwrap_err();

        assert!(matches!(error, KeyFileError::Malformed { line: 2, .. }), "{bad:?}: {error}");
        assert!(!error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn empty_zero_repeated_oversized_and_binary_files_are_refused() {
    let dir = Scratch::new("others");
    let read = |text: &[u8]| {
        let path = dir.0.join("psk");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        read_key(&path, Privacy::Required).unwrap_err()
    };
    let key = encode(&[3; 32]);

    assert!(matches!(read(b""), KeyFileError::Empty { .. }));
    assert!(matches!(read(b"# nothing\n\n"), KeyFileError::Empty { .. }));
    assert!(matches!(read(encode(&[0; 32]).as_bytes()), KeyFileError::Zero { line: 1, .. }));
    assert!(matches!(
        read(format!("{0}\n{0}\n", key.as_str()).as_bytes()),
        KeyFileError::Repeated { line: 2, .. }
    ));
    assert!(matches!(read(&vec![b'#'; MAX_FILE + 1]), KeyFileError::TooLarge { .. }));
    assert!(matches!(read(&vec![b'#'; MAX_FILE]), KeyFileError::Empty { .. }));
    assert!(matches!(read(b"\xff\xfe"), KeyFileError::NotText { .. }));
}

#[test]
fn a_missing_file_and_a_directory_are_read_errors_that_name_it() {
    let dir = Scratch::new("nothing");

    let missing = read_key(&dir.0.join("psk"), Privacy::Required).unwrap_err();
    let directory = read_key(&dir.0, Privacy::Ignored).unwrap_err();

    assert!(matches!(missing, KeyFileError::Read { .. }));
    assert!(missing.to_string().contains("/psk"), "{missing}");
    assert!(matches!(directory, KeyFileError::Read { .. }), "{directory}");
}

#[test]
fn a_key_is_read_from_a_stream_as_from_a_file() {
    let name = Path::new("standard input");
    let key = encode(&[3; 32]);

    assert_eq!(*read_key_from(key.as_bytes(), name).unwrap(), [3; 32]);
    let error = read_key_from(&b"secret\n"[..], name).unwrap_err();
    assert!(error.to_string().starts_with("standard input:1: not a key"), "{error}");
    let error = read_key_from(std::io::repeat(b'#'), name).unwrap_err();
    assert!(matches!(error, KeyFileError::TooLarge { .. }), "{error}");
}

#[test]
fn a_passphrase_is_the_first_line_without_its_end_and_nothing_else_is_trimmed() {
    let dir = Scratch::new("passphrase");
    for text in
        ["  correct horse  \n# not a comment\n", "  correct horse  \r\n", "  correct horse  "]
    {
        let path = dir.file("passphrase", text, 0o600);
        let read = read_passphrase(&path, Privacy::Required).unwrap();
        assert_eq!(read.as_str(), "  correct horse  ");
    }
}

#[test]
fn a_passphrase_below_twelve_characters_is_refused() {
    let dir = Scratch::new("short");
    let read = |text| read_passphrase(&dir.file("passphrase", text, 0o600), Privacy::Required);

    assert_eq!(read("öööööööööööö\n").unwrap().chars().count(), MIN_PASSPHRASE);
    assert!(matches!(read("ööööööööööö\n"), Err(KeyFileError::ShortPassphrase { .. })));
    assert!(matches!(read(""), Err(KeyFileError::ShortPassphrase { .. })));
}

#[test]
fn a_list_of_clients_has_keys_names_and_psks_relative_to_itself() {
    let dir = Scratch::new("allowed");
    let (one, two) = (encode(&[1; 32]), encode(&[2; 32]));
    dir.file("two.psk", &encode(&[9; 32]), 0o600);
    let text =
        format!("# clients\n{} name=one\n\n{}\tpsk=two.psk name=two\n", one.as_str(), two.as_str());
    let path = dir.file("allowed", &text, 0o644);

    let clients = read_allowed_keys(&path, Privacy::Required).unwrap();

    assert_eq!(clients.len(), 2);
    assert_eq!((clients[0].public, clients[0].line), ([1; 32], 2));
    assert_eq!(clients[0].name.as_deref(), Some("one"));
    assert!(clients[0].psk.is_none());
    assert_eq!((clients[1].public, clients[1].line), ([2; 32], 4));
    assert_eq!(clients[1].psk.as_deref(), Some(&[9; 32]));
}

#[test]
fn a_faulty_list_of_clients_is_refused_with_its_line() {
    let dir = Scratch::new("allowed-faults");
    let one = encode(&[1; 32]);
    let problem = |text: &str| match read_allowed_keys(
        &dir.file("allowed", text, 0o600),
        Privacy::Required,
    ) {
        Err(KeyFileError::Entry { line, problem, .. }) => (line, problem),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    };
    let word = |word: &str| EntryProblem::Word { word: word.to_owned() };

    assert_eq!(problem("x\n"), (1, EntryProblem::PublicKey));
    let text = |words: &str| format!("\n{} {words}\n", one.as_str());
    assert_eq!(problem(&text("nmae=x")), (2, word("nmae=x")));
    assert_eq!(problem(&text("name=")), (2, word("name=")));
    assert_eq!(problem(&text("psk=")), (2, word("psk=")));
    assert_eq!(problem(&text("name=a name=b")), (2, EntryProblem::Repeated { word: "name" }));
    let twice = format!("{0}\n{0}\n", one.as_str());
    assert_eq!(problem(&twice), (2, EntryProblem::Duplicate { first: 1 }));
}

#[test]
fn a_list_of_clients_that_others_can_write_is_refused() {
    let dir = Scratch::new("allowed-modes");
    let path = dir.file("allowed", "", 0o664);

    let error = read_allowed_keys(&path, Privacy::Required).err().unwrap();

    assert!(error.to_string().contains("run chmod go-w "), "{error}");
    assert!(read_allowed_keys(&path, Privacy::Ignored).unwrap().is_empty());
}

/// A directory of one test, gone when the test is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let name = format!("mptunnel-keyfile-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
