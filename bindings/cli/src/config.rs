// SPDX-License-Identifier: BSD-2-Clause
//! What a program is to do, from its command line, its configuration file and its environment.
//!
//! A flag goes before a line of the file, and that before the environment, and that before the
//! default. The same function serves the start and SIGHUP: the command line and the environment
//! stay, the file is read again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mptunnel_core::options::{
    ConfigErrors, ConfigFile, CredentialsError, PathSpec, Place, Protocol, Settings,
};

use crate::args::{ClientArgs, Fork, ServerArgs};

/// What mpclient is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// The options.
    pub settings: Settings,
    /// The paths, at least one, each with `to` and a name.
    pub paths: Vec<PathSpec>,
}

/// What mpserver is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// The options.
    pub settings: Settings,
}

/// Why a program does not know what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read or is not understood.
    #[error(transparent)]
    File(#[from] ConfigErrors),
    /// The configuration file of a client names no path.
    #[error("{}: no path: add a line HOST PORT, such as bridge1.example 4000", file.display())]
    NoPath {
        /// The file.
        file: PathBuf,
    },
    /// `MPTUNNEL_ENCRYPT` is neither 0 nor 1.
    #[error("MPTUNNEL_ENCRYPT={value:?}: expected 1 (encrypt, the default) or 0 (do not)")]
    Encrypt {
        /// Its value.
        value: OsString,
    },
    /// The key options do not go together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// The part of the environment that the programs look at. Tests make their own.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `MPTUNNEL_ENCRYPT`.
    pub encrypt: Option<OsString>,
    /// `MPTUNNEL_KEY_FILE`.
    pub key_file: Option<OsString>,
    /// `XDG_CONFIG_HOME`.
    pub config_home: Option<OsString>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The directory of the system's key file, `/etc/mptunnel`.
    pub system_directory: PathBuf,
    /// `STATE_DIRECTORY`, which systemd sets.
    pub state_directory: Option<OsString>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<OsString>,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Environment {
        Environment {
            encrypt: std::env::var_os("MPTUNNEL_ENCRYPT"),
            key_file: std::env::var_os("MPTUNNEL_KEY_FILE"),
            config_home: std::env::var_os("XDG_CONFIG_HOME"),
            home: std::env::home_dir(),
            system_directory: PathBuf::from("/etc/mptunnel"),
            state_directory: std::env::var_os("STATE_DIRECTORY"),
            state_home: std::env::var_os("XDG_STATE_HOME"),
        }
    }

    /// `MPTUNNEL_ENCRYPT` means two things: encryption, or under `protocol = legacy` the obfuscation
    /// of the classic programs, with their way to read a number and each with its default.
    fn apply(&self, settings: &mut Settings, fork: Option<Fork>) -> Result<(), ConfigError> {
        if settings.protocol == Protocol::Legacy {
            settings.obfuscate = match &self.encrypt {
                Some(value) => is_nonzero(&value.to_string_lossy()),
                None => fork == Some(Fork::Greensea),
            };
            return Ok(());
        }
        let Some(value) = &self.encrypt else { return Ok(()) };
        settings.encrypt = match value.to_str() {
            Some("0") => false,
            Some("1") => true,
            _ => return Err(ConfigError::Encrypt { value: value.clone() }),
        };
        Ok(())
    }
}

impl ClientArgs {
    /// Reads the configuration file and tells what to do.
    ///
    /// # Errors
    ///
    /// The file, the environment or the options together are wrong. The message says where.
    pub fn load(&self, environment: &Environment) -> Result<ClientConfig, ConfigError> {
        let file = ConfigFile::load(&self.config, Place::ClientProgram)?;
        let mut settings = merge(environment, Some(&file), &self.flags, self.fork)?;
        settings.credentials(Place::ClientProgram.role())?;
        let given = self.flags.iter().map(|(key, _)| *key);
        let mut given = given.chain(file.options.iter().map(|option| option.key));
        if settings.protocol == Protocol::Legacy && !given.any(|key| key == "listen") {
            settings.listen.set_port(CLASSIC_PORT);
        }
        if file.paths.is_empty() {
            return Err(ConfigError::NoPath { file: self.config.clone() });
        }
        Ok(ClientConfig { settings, paths: file.paths.into_iter().map(|path| path.spec).collect() })
    }
}

impl ServerArgs {
    /// Reads the configuration file, if there is one, and tells what to do.
    ///
    /// # Errors
    ///
    /// As [`ClientArgs::load`].
    pub fn load(&self, environment: &Environment) -> Result<ServerConfig, ConfigError> {
        let load = |file: &Path| ConfigFile::load(file, Place::ServerProgram);
        let file = self.config.as_deref().map(load).transpose()?;
        let settings = merge(environment, file.as_ref(), &self.flags, self.fork)?;
        settings.credentials(Place::ServerProgram.role())?;
        Ok(ServerConfig { settings })
    }
}

fn merge(
    environment: &Environment,
    file: Option<&ConfigFile>,
    flags: &[(&'static str, String)],
    fork: Option<Fork>,
) -> Result<Settings, ConfigError> {
    let given = |settings: &mut Settings| {
        if let Some(file) = file {
            file.apply(settings);
        }
        for (key, value) in flags {
            settings.set(key, value).expect("flags were checked when the command line was read");
        }
    };
    // What the environment means depends on the protocol, which they say.
    let mut found = Settings::default();
    given(&mut found);
    let mut settings = Settings { protocol: found.protocol, ..Settings::default() };
    environment.apply(&mut settings, fork)?;
    given(&mut settings);
    Ok(settings)
}

/// Whether `atoi` reads a number other than 0, as the classic programs ask.
fn is_nonzero(text: &str) -> bool {
    let text = text.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.chars().take_while(char::is_ascii_digit).any(|digit| digit != '0')
}

/// Where the classic client listens.
const CLASSIC_PORT: u16 = 3210;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Loads a client's file of this text with these flags and this MPTUNNEL_ENCRYPT.
    fn load(text: &str, flags: &[&str], encrypt: Option<&str>) -> Result<ClientConfig, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mptunnel-config-{}-{count}", std::process::id());
        let file = std::env::temp_dir().join(name);
        fs::write(&file, text).unwrap();
        let args = [&["mpclient", file.to_str().unwrap()], flags].concat();
        let environment =
            Environment { encrypt: encrypt.map(OsString::from), ..Environment::default() };
        let config = ClientArgs::parse_from(args).unwrap().load(&environment);
        fs::remove_file(&file).unwrap();
        config.map_err(|error| error.to_string().replace(file.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_environment() {
        let encrypt = |text, flags: &[&str], environment| {
            load(text, flags, environment).unwrap().settings.encrypt
        };

        assert!(encrypt("h 1", &[], None));
        assert!(encrypt("h 1", &[], Some("1")));
        assert!(!encrypt("h 1", &[], Some("0")));
        assert!(encrypt("h 1\nencrypt = on", &[], Some("0")));
        assert!(!encrypt("h 1\nencrypt = on", &["--encrypt", "off"], Some("1")));
    }

    #[test]
    fn only_0_and_1_are_values_of_mptunnel_encrypt() {
        for value in ["", "yes", "2", "01"] {
            assert_eq!(
                load("h 1", &[], Some(value)).unwrap_err(),
                format!(
                    "MPTUNNEL_ENCRYPT={value:?}: expected 1 (encrypt, the default) or 0 (do not)"
                )
            );
        }
    }

    #[test]
    fn under_the_classic_protocol_mptunnel_encrypt_means_what_it_meant_there() {
        let of = |text, flags: &[&str], environment| {
            let settings = load(text, flags, environment).unwrap().settings;
            // It never switches the encryption of the other protocol off.
            (settings.obfuscate, settings.encrypt)
        };
        for (value, obfuscates) in [
            (None, false),
            (Some("0"), false),
            (Some("1"), true),
            (Some(" -7x"), true),
            (Some("00"), false),
            (Some("yes"), false),
            (Some(""), false),
        ] {
            assert_eq!(of("h 1", &["--legacy"], value), (obfuscates, true), "{value:?}");
            assert_eq!(of("h 1\nprotocol = legacy", &[], value), (obfuscates, true), "{value:?}");
        }
        assert_eq!(of("h 1", &["--legacy=greensea"], None), (true, true));
        assert_eq!(of("h 1", &["--legacy=greensea"], Some("0")), (false, true));
        assert_eq!(of("h 1", &["--legacy=bitforgebr"], None), (false, true));
        assert_eq!(of("h 1\nobfuscate = off", &["--legacy"], Some("1")), (false, true));
    }

    #[test]
    fn under_the_classic_protocol_a_client_listens_where_the_classic_one_did() {
        let listen = |text, flags: &[&str]| load(text, flags, None).unwrap().settings.listen;

        assert_eq!(listen("b 1", &["--legacy"]), "127.0.0.1:3210".parse().unwrap());
        assert_eq!(listen("b 1\nlisten = 5", &["--legacy"]), "127.0.0.1:5".parse().unwrap());
        assert_eq!(
            listen("b 1\nprotocol = legacy", &["--listen", "3000"]),
            "127.0.0.1:3000".parse().unwrap()
        );
    }

    #[test]
    fn a_client_listens_on_loopback_port_3000_unless_told_otherwise() {
        let listen = |text, flags: &[&str]| load(text, flags, None).unwrap().settings.listen;

        assert_eq!(listen("b 1", &[]), "127.0.0.1:3000".parse().unwrap());
        assert_eq!(listen("b 1\nlisten = 3001", &[]), "127.0.0.1:3001".parse().unwrap());
        assert_eq!(
            listen("b 1\nlisten = 3001", &["--listen", "[::]:1"]),
            "[::]:1".parse().unwrap()
        );
    }

    #[test]
    fn a_file_without_a_path_is_refused() {
        assert_eq!(
            load("# nothing\nmtu = 1400\n", &[], None).unwrap_err(),
            "FILE: no path: add a line HOST PORT, such as bridge1.example 4000"
        );
    }

    #[test]
    fn key_options_that_do_not_go_together_are_refused_wherever_they_come_from() {
        assert_eq!(
            load("c 1\nkey-file = /a", &["--passphrase-file", "/b"], None).unwrap_err(),
            "key-file and passphrase-file exclude each other: keep one of them"
        );
    }

    #[test]
    fn errors_of_the_file_are_passed_on_with_their_lines() {
        assert_eq!(
            load("d 1 wieght=3\n", &[], None).unwrap_err(),
            "FILE:1: unknown word \"wieght=3\": did you mean \"weight=\"?"
        );
    }

    #[test]
    fn a_server_needs_no_file_and_takes_options_from_one() {
        let name = format!("mptunnel-server-config-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        fs::write(&file, "sessions = 10\nflows = 20\n").unwrap();
        let load = |args: &[&str]| {
            let args = [&["mpserver", "2000", "h", "1"], args].concat();
            ServerArgs::parse_from(args).unwrap().load(&Environment::default())
        };

        let none = load(&[]).unwrap().settings;
        let some = load(&["-c", file.to_str().unwrap(), "--flows", "30"]).unwrap().settings;
        fs::remove_file(&file).unwrap();

        assert_eq!(none, Settings::default());
        assert_eq!((some.sessions, some.flows), (10, 30));
    }
}
