// SPDX-License-Identifier: BSD-2-Clause
//! From settings to what the state machines are told: keys are read, numbers converted.

use crate::Error;
use crate::keyfile::{self, Privacy};
use crate::options::{
    Credentials, OptionSpec, PathRate, PathRole, PathSpec, Place, Role, Settings,
};
use crate::proto::client::PathSettings;
use crate::proto::config::{
    CipherChoice, ClientConfig, ClientKeys, Common, ServerConfig, ServerKey, ServerLimits,
};
use crate::proto::crypto::{Cipher, Psk, PublicKey, StaticSecret};
use crate::proto::frame::LEARN_RATE;
use crate::proto::probe::Intervals;
use crate::proto::sched::Policy;
use crate::proto::throttle::Rate;
use std::collections::HashMap;
use std::path::Path;
use zeroize::Zeroizing;

/// A key that the application holds itself, in place of a file.
pub(crate) type OwnKey = Option<Zeroizing<[u8; 32]>>;

fn config(error: impl std::fmt::Display) -> Error {
    Error::Config(error.to_string())
}

/// An error and what is behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn privacy(settings: &Settings) -> Privacy {
    if settings.allow_insecure_keys { Privacy::Ignored } else { Privacy::Required }
}

fn psk(bytes: &[u8; 32]) -> Result<Psk, Error> {
    Psk::new(*bytes).map_err(config)
}

fn psk_file(file: &Path, settings: &Settings) -> Result<Psk, Error> {
    let key = keyfile::read_key(file, privacy(settings)).map_err(|e| config(chain(&e)))?;
    psk(&key)
}

fn private_key(file: &Path, settings: &Settings) -> Result<StaticSecret, Error> {
    let key = keyfile::read_key(file, privacy(settings)).map_err(|e| config(chain(&e)))?;
    StaticSecret::new(*key).map_err(config)
}

#[cfg(feature = "passphrase")]
fn passphrase(file: &Path, name: &str, settings: &Settings) -> Result<Psk, Error> {
    let text = keyfile::read_passphrase(file, privacy(settings)).map_err(|e| config(chain(&e)))?;
    log::warn!(
        target: "mptunnel::key",
        "a passphrase is in use: whoever records one handshake can guess it offline; prefer a key \
         made by `mptunnel genpsk`"
    );
    Psk::from_passphrase(&text, name).map_err(config)
}

#[cfg(not(feature = "passphrase"))]
fn passphrase(_: &Path, _: &str, _: &Settings) -> Result<Psk, Error> {
    Err(config("passphrase-file: this build has no passphrases (cargo feature `passphrase`)"))
}

const NO_KEY: &str = "no key: set key-file to a file made by `mptunnel genpsk`, the same on both \
                      ends";

const TWO_KEYS: &str = "two keys: one was passed itself, and an option (key-file, passphrase-file, \
                        private-key-file) names another one: give one of them";

/// What a client is told.
pub(crate) fn client(settings: &Settings, own: OwnKey) -> Result<ClientConfig, Error> {
    let keys = match (own, settings.credentials(Role::Client).map_err(config)?) {
        (Some(_), named) if !matches!(named, Credentials::None) => return Err(config(TWO_KEYS)),
        (Some(key), _) => ClientKeys::Psk(psk(&key)?),
        (None, Credentials::Psk { file }) => ClientKeys::Psk(psk_file(file, settings)?),
        (None, Credentials::Passphrase { file, name }) => {
            ClientKeys::Psk(passphrase(file, name, settings)?)
        }
        (None, Credentials::ClientKeys { private_key_file, peer_key, psk_file: file }) => {
            ClientKeys::Static {
                own: private_key(private_key_file, settings)?,
                server: PublicKey::new(*peer_key).map_err(config)?,
                psk: file.map(|file| psk_file(file, settings)).transpose()?,
            }
        }
        (None, Credentials::None | Credentials::ServerKeys { .. }) => return Err(config(NO_KEY)),
    };
    let mut client = ClientConfig::new(keys);
    client.name.clone_from(&settings.name);
    client.common = common(settings)?;
    Ok(client)
}

/// What a server is told.
pub(crate) fn server(settings: &Settings, own: OwnKey) -> Result<ServerConfig, Error> {
    // Each with where it comes from.
    let mut keys: Vec<(Source<'_>, ServerKey)> = Vec::new();
    let has_own = own.is_some();
    if let Some(key) = own {
        keys.push((Source::Application, ServerKey::Psk(psk(&key)?)));
    }
    match settings.credentials(Role::Server).map_err(config)? {
        Credentials::Psk { .. } | Credentials::Passphrase { .. } if has_own => {
            return Err(config(TWO_KEYS));
        }
        Credentials::Psk { file } => keys.extend(psk_list(file, settings)?),
        Credentials::Passphrase { file, name } => {
            let key = ServerKey::Psk(passphrase(file, name, settings)?);
            keys.push((Source::File("passphrase-file", file), key));
        }
        Credentials::ServerKeys { private_key_file, allowed_keys_file, psk_file } => {
            let own = private_key(private_key_file, settings)?;
            let clients = allowed(allowed_keys_file, settings)?;
            let source = Source::File("private-key-file", private_key_file);
            keys.push((source, ServerKey::Static { own, clients }));
            if let Some(file) = psk_file {
                keys.extend(psk_list(file, settings)?);
            }
        }
        Credentials::None | Credentials::ClientKeys { .. } => {}
    }
    if keys.is_empty() {
        return Err(config(NO_KEY));
    }
    check_ids(&keys)?;
    let mut server = ServerConfig::new(keys.into_iter().map(|(_, key)| key).collect());
    server.common = common(settings)?;
    server.sessions = settings.sessions as usize;
    server.session_timeout = settings.session_timeout;
    server.handshakes_per_s = settings.handshake_rate;
    server.load_threshold = settings.cookie_threshold;
    server.source_rate = settings.source_rate;
    server.source_burst = settings.source_burst;
    Ok(server)
}

/// Where a key of a server comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The application passed the key itself.
    Application,
    /// A file that an option names.
    File(&'static str, &'a Path),
}

impl std::fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Application => f.write_str("the key that was passed itself"),
            Source::File(option, file) => write!(f, "{option} {}", file.display()),
        }
    }
}

/// Refuses two keys with one key id (PROTOCOL.md, "Key derivations"): which of them a client has
/// could not be told.
fn check_ids(keys: &[(Source<'_>, ServerKey)]) -> Result<(), Error> {
    let mut known: HashMap<[u8; 8], (Source<'_>, &ServerKey)> = HashMap::new();
    for (source, key) in keys {
        let id = key.key_set().key_id;
        let Some((first, other)) = known.insert(id, (*source, key)) else { continue };
        let remedy = match (key, other) {
            // The id of a private key is made of its public key.
            (ServerKey::Psk(_), ServerKey::Static { .. }) => {
                "a public key stands where a shared key belongs, and is no secret: make a shared \
                 key with mptunnel genpsk"
            }
            _ => "a key may be there once: remove it from one of them, or make another one",
        };
        let id = crate::io::server::hex(&id);
        return Err(config(format!("{first} and {source} have the same key id {id}: {remedy}")));
    }
    Ok(())
}

/// `settings` with another value of one option that may change while an endpoint runs.
pub(crate) fn changed(
    settings: &Settings,
    place: Place,
    key: &str,
    value: &str,
) -> Result<Settings, Error> {
    let mut changed = settings.clone();
    changed.set(key, value).map_err(config)?;
    if let Some(spec) = OptionSpec::find(key) {
        spec.check_place(place).map_err(config)?;
        if !spec.live {
            return Err(config(format!(
                "{key} counts only at the start: close the endpoint and open it with the new value"
            )));
        }
    }
    Ok(changed)
}

/// The value of an option that `place` has.
pub(crate) fn value_of(
    settings: &Settings,
    place: Place,
    key: &str,
) -> Result<Option<String>, Error> {
    let Some(spec) = OptionSpec::find(key) else {
        // Setting it fails with a message that says which one may be meant.
        return settings.clone().set(key, "").map(|()| None).map_err(config);
    };
    spec.check_place(place).map_err(config)?;
    Ok(settings.get(key))
}

/// How paths are chosen.
pub(crate) fn policy(settings: &Settings) -> Policy {
    Policy {
        mode: settings.mode,
        target_loss_ppb: settings.target_loss_ppb,
        max_copies: settings.max_copies,
        budget: settings.budget,
        failback: settings.failback,
    }
}

/// What a client is told about a path.
pub(crate) fn path(settings: &Settings, spec: &PathSpec) -> PathSettings {
    PathSettings {
        name: spec.name.clone().unwrap_or_default(),
        backup: spec.role == PathRole::Backup,
        fixed_size: spec.mtu.is_some() || settings.mtu != 0,
        rate: match spec.rate {
            PathRate::Unknown => Rate::Unknown,
            // In bytes per second; 10^6 of them at most.
            PathRate::Mbit(mbit) => Rate::Told((mbit * 125_000.0) as u64),
            PathRate::Auto => Rate::Learnt,
        },
        rate_down: match spec.rate_down {
            PathRate::Unknown => 0,
            // 1 to 10^9 of them.
            PathRate::Mbit(mbit) => (mbit * 1_000.0).round() as u32,
            PathRate::Auto => LEARN_RATE,
        },
        // The words of a path take no larger ones.
        weight: u16::try_from(spec.weight).unwrap_or(u16::MAX),
        cost: spec.cost.unwrap_or(0),
    }
}

/// What of a server may change while it runs.
pub(crate) fn server_limits(settings: &Settings) -> ServerLimits {
    ServerLimits {
        sessions: settings.sessions as usize,
        session_timeout: settings.session_timeout,
        handshakes_per_s: settings.handshake_rate,
        load_threshold: settings.cookie_threshold,
        source_rate: settings.source_rate,
        source_burst: settings.source_burst,
        idle_interval: settings.idle_interval,
    }
}

fn psk_list<'a>(
    file: &'a Path,
    settings: &Settings,
) -> Result<Vec<(Source<'a>, ServerKey)>, Error> {
    let keys = keyfile::read_keys(file, privacy(settings)).map_err(|e| config(chain(&e)))?;
    let source = Source::File("key-file", file);
    keys.iter().map(|key| Ok((source, ServerKey::Psk(psk(key)?)))).collect()
}

fn allowed(file: &Path, settings: &Settings) -> Result<HashMap<PublicKey, Option<Psk>>, Error> {
    let list = keyfile::read_allowed_keys(file, privacy(settings));
    let mut clients = HashMap::new();
    for client in list.map_err(|e| config(chain(&e)))? {
        let public = PublicKey::new(client.public).map_err(config)?;
        let shared = client.psk.as_deref().map(psk).transpose()?;
        clients.insert(public, shared);
    }
    Ok(clients)
}

/// Whether AES-256-GCM runs on instructions made for it, and so is the faster cipher.
fn has_aes_hardware() -> bool {
    // `ring`'s fast code takes AVX and MOVBE as well; without them it goes a slower way.
    #[cfg(target_arch = "x86_64")]
    let has = std::is_x86_feature_detected!("aes")
        && std::is_x86_feature_detected!("pclmulqdq")
        && std::is_x86_feature_detected!("avx")
        && std::is_x86_feature_detected!("movbe");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

fn common(settings: &Settings) -> Result<Common, Error> {
    if settings.cipher == CipherChoice::Aes256Gcm && Cipher::AES.is_none() {
        return Err(config("cipher: this build has no aes256gcm (cargo feature `ring`)"));
    }
    let defaults = Common::default();
    Ok(Common {
        clear: !settings.encrypt,
        cipher: settings.cipher,
        aes_hardware: has_aes_hardware(),
        max_payload: settings.max_payload,
        // The table takes powers of two only.
        window_log2: u8::try_from(settings.window.max(1).ilog2()).unwrap_or(defaults.window_log2),
        window_memory: usize::try_from(settings.window_memory).unwrap_or(usize::MAX),
        reassembly_memory: usize::try_from(settings.reassembly_memory).unwrap_or(usize::MAX),
        intervals: Intervals { active: settings.probe_interval, idle: settings.idle_interval },
        policy: policy(settings),
        rekey_after: settings.rekey_interval,
        reorder: settings.reorder,
        path_queue: settings.path_queue,
        fixed_size: settings.mtu != 0,
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How the machines keep to them, the tests of `proto::budget`, `proto::replay` and
    /// `proto::fragment` show.
    #[test]
    fn the_memory_options_bound_what_windows_and_pieces_take() {
        let mut settings = Settings::default();
        settings.set("window-memory", "2MiB").unwrap();
        settings.set("reassembly-memory", "128KiB").unwrap();
        let key = || Some(Zeroizing::new([7; 32]));

        for common in
            [client(&settings, key()).unwrap().common, server(&settings, key()).unwrap().common]
        {
            assert_eq!((common.window_memory, common.reassembly_memory), (2 << 20, 128 << 10));
        }
    }
}
