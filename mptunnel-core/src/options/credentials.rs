// SPDX-License-Identifier: BSD-2-Clause
//! Which of the key options are in force.

use std::path::Path;

use super::settings::Settings;
use super::spec::Role;

/// What an endpoint proves its identity with: one of three ways, or nothing yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials<'a> {
    /// None of the key options is set.
    None,
    /// A shared key.
    Psk {
        /// The file with the key; a server's may list several.
        file: &'a Path,
    },
    /// A shared key made from a passphrase.
    Passphrase {
        /// The file with the passphrase.
        file: &'a Path,
        /// The name of the tunnel, the same on both ends.
        name: &'a str,
    },
    /// Static keys, this end being a client.
    ClientKeys {
        /// The file with its private key.
        private_key_file: &'a Path,
        /// The server's public key.
        peer_key: &'a [u8; 32],
        /// The file with a key shared with the server, mixed into the handshake.
        psk_file: Option<&'a Path>,
    },
    /// Static keys, this end being a server.
    ServerKeys {
        /// The file with its private key.
        private_key_file: &'a Path,
        /// The list of its clients.
        allowed_keys_file: &'a Path,
        /// The file with shared keys, for clients that have no key of their own.
        psk_file: Option<&'a Path>,
    },
}

/// Why the key options do not go together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Two options that exclude each other.
    #[error("{0} and {1} exclude each other: keep one of them")]
    Both(&'static str, &'static str),
    /// An option that needs another one.
    #[error("{0} needs {1} as well")]
    Missing(&'static str, &'static str),
}

impl Settings {
    /// Which of the key options are in force for `role`.
    ///
    /// # Errors
    ///
    /// They exclude each other, or one needs another one that is not set.
    pub fn credentials(&self, role: Role) -> Result<Credentials<'_>, CredentialsError> {
        if let Some(file) = self.passphrase_file.as_deref() {
            if self.key_file.is_some() {
                return Err(CredentialsError::Both("key-file", "passphrase-file"));
            }
            if self.private_key_file.is_some() {
                return Err(CredentialsError::Both("private-key-file", "passphrase-file"));
            }
            let missing = CredentialsError::Missing("passphrase-file", "tunnel-name");
            let name = self.tunnel_name.as_deref().ok_or(missing)?;
            return Ok(Credentials::Passphrase { file, name });
        }
        let psk_file = self.key_file.as_deref();
        let Some(private_key_file) = self.private_key_file.as_deref() else {
            let needy = match role {
                Role::Client => self.peer_key.map(|_| "peer-key"),
                Role::Server => self.allowed_keys_file.as_ref().map(|_| "allowed-keys-file"),
            };
            return match (needy, psk_file) {
                (Some(key), _) => Err(CredentialsError::Missing(key, "private-key-file")),
                (None, Some(file)) => Ok(Credentials::Psk { file }),
                (None, None) => Ok(Credentials::None),
            };
        };
        match role {
            Role::Client => {
                let missing = CredentialsError::Missing("private-key-file", "peer-key");
                let peer_key = self.peer_key.as_ref().ok_or(missing)?;
                Ok(Credentials::ClientKeys { private_key_file, peer_key, psk_file })
            }
            Role::Server => {
                let missing = CredentialsError::Missing("private-key-file", "allowed-keys-file");
                let allowed_keys_file = self.allowed_keys_file.as_deref().ok_or(missing)?;
                Ok(Credentials::ServerKeys { private_key_file, allowed_keys_file, psk_file })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(keys: &[&str]) -> Settings {
        let mut settings = Settings::default();
        for key in keys {
            let file = Some(key.into());
            match *key {
                "key-file" => settings.key_file = file,
                "passphrase-file" => settings.passphrase_file = file,
                "private-key-file" => settings.private_key_file = file,
                "allowed-keys-file" => settings.allowed_keys_file = file,
                "peer-key" => settings.peer_key = Some([1; 32]),
                other => settings.tunnel_name = Some(other.to_owned()),
            }
        }
        settings
    }

    #[test]
    fn each_way_needs_its_own_options_and_no_others() {
        for role in [Role::Client, Role::Server] {
            assert_eq!(settings(&["name"]).credentials(role), Ok(Credentials::None));
            assert_eq!(
                settings(&["key-file"]).credentials(role),
                Ok(Credentials::Psk { file: Path::new("key-file") })
            );
            assert_eq!(
                settings(&["passphrase-file", "name"]).credentials(role),
                Ok(Credentials::Passphrase { file: Path::new("passphrase-file"), name: "name" })
            );
        }
        assert_eq!(
            settings(&["private-key-file", "peer-key", "key-file"]).credentials(Role::Client),
            Ok(Credentials::ClientKeys {
                private_key_file: Path::new("private-key-file"),
                peer_key: &[1; 32],
                psk_file: Some(Path::new("key-file")),
            })
        );
        assert_eq!(
            settings(&["private-key-file", "allowed-keys-file"]).credentials(Role::Server),
            Ok(Credentials::ServerKeys {
                private_key_file: Path::new("private-key-file"),
                allowed_keys_file: Path::new("allowed-keys-file"),
                psk_file: None,
            })
        );
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let error = |keys: &[&str], role| settings(keys).credentials(role).unwrap_err().to_string();
        let (client, server) = (Role::Client, Role::Server);

        assert_eq!(
            error(&["passphrase-file"], client),
            "passphrase-file needs tunnel-name as well"
        );
        assert_eq!(
            error(&["passphrase-file", "key-file", "n"], server),
            "key-file and passphrase-file exclude each other: keep one of them"
        );
        assert_eq!(
            error(&["passphrase-file", "private-key-file", "n"], client),
            "private-key-file and passphrase-file exclude each other: keep one of them"
        );
        assert_eq!(error(&["private-key-file"], client), "private-key-file needs peer-key as well");
        assert_eq!(
            error(&["private-key-file"], server),
            "private-key-file needs allowed-keys-file as well"
        );
        assert_eq!(error(&["peer-key"], client), "peer-key needs private-key-file as well");
        assert_eq!(
            error(&["allowed-keys-file", "key-file"], server),
            "allowed-keys-file needs private-key-file as well"
        );
    }
}
