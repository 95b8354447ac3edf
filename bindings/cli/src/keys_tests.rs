// SPDX-License-Identifier: BSD-2-Clause
//! Which key the programs take, which they refuse, and when one is made.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Barrier;
use std::thread;

use mptunnel_core::keyfile::Privacy;

use super::*;
use crate::exit::describe;

#[test]
fn the_first_run_of_a_server_makes_a_key_and_the_second_one_uses_it() {
    let world = World::new("first-run");

    let (first, made) = world.server().unwrap();
    let (second, again) = world.server().unwrap();

    assert_eq!(made.unwrap().path, world.user_key());
    assert_eq!(first, Some(world.user_key()));
    assert_eq!((second, again), (first, None));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&world.user_key()), 0o600);
    assert_eq!(mode(world.user_key().parent().unwrap()), 0o700);
    assert!(keyfile::read_key(&world.user_key(), Privacy::Required).is_ok());
}

#[test]
fn what_the_first_run_prints_says_where_and_how_but_never_the_key() {
    let world = World::new("prints");

    let text = world.server().unwrap().1.unwrap().to_string();

    let path = world.user_key().display().to_string();
    let key = keyfile::read_key(&world.user_key(), Privacy::Required).unwrap();
    assert!(text.contains(&path), "{text}");
    assert!(text.contains(&format!("key id {}", key_id(&key))), "{text}");
    assert!(text.contains(&format!("scp -p {path} CLIENT:.config/mptunnel/psk")), "{text}");
    assert!(!text.contains(keyfile::encode(&key).as_str()), "{text}");
}

#[test]
fn servers_that_start_at_once_get_one_key_and_one_of_them_tells() {
    let world = World::new("at-once");
    let start = Barrier::new(8);

    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    world.server().unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    assert_eq!(results.iter().filter(|(_, made)| made.is_some()).count(), 1);
    assert!(results.iter().all(|(file, _)| *file == Some(world.user_key())));
}

#[test]
fn options_go_before_the_environment_and_that_before_the_system_and_that_before_the_user() {
    let mut world = World::new("order");
    let named = world.write("named", 1);
    let environment = world.write("environment", 2);
    let system = world.write("etc/psk", 3);
    let user = world.write("home/.config/mptunnel/psk", 4);

    world.settings.key_file = Some(named.clone());
    world.environment.key_file = Some(environment.clone().into());
    let mut seen = vec![world.both()];
    world.settings.key_file = None;
    seen.push(world.both());
    world.environment.key_file = None;
    seen.push(world.both());
    fs::remove_file(&system).unwrap();
    seen.push(world.both());

    assert_eq!(seen, [named, environment, system, user]);
}

#[test]
fn the_configuration_home_goes_before_the_home_unless_it_is_empty_or_relative() {
    let mut world = World::new("config-home");
    let in_config_home = world.write("xdg/mptunnel/psk", 1);
    let in_home = world.write("home/.config/mptunnel/psk", 2);

    for (config_home, file) in [
        (world.root.join("xdg"), in_config_home),
        ("".into(), in_home.clone()),
        ("xdg".into(), in_home),
    ] {
        world.environment.config_home = Some(config_home.into());
        assert_eq!(world.both(), file);
    }
}

#[test]
fn a_client_without_a_key_is_told_where_to_get_it_and_makes_none() {
    let world = World::new("client");

    let error = world.client().err().unwrap().to_string();

    let path = world.user_key().display().to_string();
    assert!(error.contains(&format!("scp -p SERVER:.config/mptunnel/psk {path}")), "{error}");
    assert!(error.contains("etc/psk") && error.contains("--key-file FILE"), "{error}");
    assert!(!world.root.join("home/.config").exists());
}

#[test]
fn without_a_home_directory_the_remedy_is_a_named_file_and_nothing_is_made() {
    let mut world = World::new("homeless");
    let nowhere = world.root.join("nowhere");
    for home in [None, Some(nowhere.clone()), Some("".into()), Some("home".into())] {
        world.environment.home = home;

        let server = world.server().err().unwrap().to_string();
        let client = world.client().err().unwrap().to_string();

        assert!(server.contains("no home directory") && server.contains("--key-file"), "{server}");
        assert!(server.contains("etc/psk"), "{server}");
        assert!(client.contains("no home directory") && client.contains("--key-file"), "{client}");
        assert!(!nowhere.exists());
    }
}

#[test]
fn an_unusable_file_is_taken_and_never_skipped_or_overwritten() {
    for place in ["etc/psk", "home/.config/mptunnel/psk"] {
        let world = World::new("unusable");
        // What follows it in the order would do, but must not be taken.
        world.write("home/.config/mptunnel/psk", 9);
        let path = world.write(place, 1);

        fs::write(&path, "not a key\n").unwrap();
        assert_eq!(world.both(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a key\n");

        // Even a link to nowhere: somebody meant it to be the key.
        fs::remove_file(&path).unwrap();
        symlink(world.root.join("nowhere"), &path).unwrap();
        assert_eq!(world.both(), path);
        assert!(!world.root.join("nowhere").exists());

        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(world.both(), path);
    }
}

#[test]
fn a_named_file_that_is_missing_is_taken_and_is_not_made() {
    let mut world = World::new("named");
    world.write("home/.config/mptunnel/psk", 9);
    let path = world.root.join("missing");

    world.settings.key_file = Some(path.clone());
    assert_eq!(world.both(), path);

    world.settings.key_file = None;
    world.environment.key_file = Some(path.clone().into());
    assert_eq!(world.both(), path);

    world.environment.key_file = Some("".into());
    world.both_refuse("MPTUNNEL_KEY_FILE is empty");
    assert!(!path.exists());
}

#[test]
fn a_place_that_cannot_be_looked_at_is_an_error() {
    let world = World::new("hidden");
    // A link to itself cannot be followed (ELOOP), whoever asks; a directory without permissions
    // would not stop root.
    let etc = world.root.join("etc");
    fs::remove_dir(&etc).unwrap();
    symlink(&etc, &etc).unwrap();

    world.both_refuse("cannot look for a key in");
}

#[test]
fn other_credentials_leave_the_default_places_alone() {
    let mut world = World::new("others");
    world.environment.key_file = Some("/nowhere".into());

    world.settings.passphrase_file = Some("passphrase".into());
    world.settings.tunnel_name = Some("home".into());
    assert_eq!(world.client().unwrap(), None);
    assert_eq!(world.server().unwrap(), (None, None));

    world.settings.passphrase_file = None;
    world.settings.private_key_file = Some("private".into());
    world.settings.peer_key = Some([4; 32]);
    assert_eq!(world.client().unwrap(), None);
    world.settings.allowed_keys_file = Some("allowed".into());
    assert_eq!(world.server().unwrap(), (None, None));
    assert!(!world.root.join("home/.config").exists());
}

#[test]
fn a_name_that_a_shell_would_take_apart_is_quoted() {
    assert_eq!(quoted(Path::new("/home/u/.config/mptunnel/psk")), "/home/u/.config/mptunnel/psk");
    assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
}

/// A file system of one test, with an `etc` and a `home`, gone when the test is over.
struct World {
    root: PathBuf,
    environment: Environment,
    settings: Settings,
}

impl World {
    fn new(test: &str) -> World {
        let name = format!("mptunnel-keys-{}-{test}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir(&root).unwrap();
        fs::create_dir(root.join("etc")).unwrap();
        fs::create_dir(root.join("home")).unwrap();
        let environment = Environment {
            home: Some(root.join("home")),
            system_directory: root.join("etc"),
            ..Environment::default()
        };
        World { root, environment, settings: Settings::default() }
    }

    fn user_key(&self) -> PathBuf {
        self.root.join("home/.config/mptunnel/psk")
    }

    /// Writes a sound key file with the key `[byte; 32]`.
    fn write(&self, name: &str, byte: u8) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{}\n", &*keyfile::encode(&[byte; 32]))).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn client(&self) -> Result<Option<PathBuf>, KeyError> {
        let mut settings = self.settings.clone();
        locate_for_client(&mut settings, &self.environment)?;
        Ok(settings.key_file)
    }

    fn server(&self) -> Result<(Option<PathBuf>, Option<FirstRun>), KeyError> {
        let mut settings = self.settings.clone();
        let made = locate_for_server(&mut settings, &self.environment)?;
        Ok((settings.key_file, made))
    }

    /// The file that both programs take.
    fn both(&self) -> PathBuf {
        let (server, made) = self.server().unwrap();
        assert_eq!((&server, made), (&self.client().unwrap(), None));
        server.unwrap()
    }

    fn both_refuse(&self, words: &str) {
        let client = describe(&self.client().err().unwrap());
        let server = describe(&self.server().err().unwrap());
        assert!(client.contains(words), "{client}");
        assert_eq!(client, server);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
