// SPDX-License-Identifier: BSD-2-Clause
//! Endpoints as one line of text.

use std::str::FromStr;

use super::error::OptionError;
use super::host::{AddressError, HostPort};
use super::path::{self, MAX_PATHS, PathError, PathSpec};
use super::settings::Settings;
use super::spec::{OptionSpec, Place, Role};

/// An endpoint with its options and paths.
///
/// ```text
/// mpt://HOST:PORT?KEY=VALUE&path=WORDS&path=WORDS          a client of the server at HOST:PORT
/// mpt-listen://ADDR:PORT?KEY=VALUE                         a server
/// ```
///
/// Keys are those of [`OPTIONS`](super::OPTIONS), each at most once, and `path`, up to
/// [`MAX_PATHS`] times, with the words of [`PATH_WORDS`](super::PATH_WORDS) between commas. A
/// character that would be mistaken (`& # % ? +` are safe only as part of `%26`…) is written as
/// `%XX`; a plus sign is a plus sign.
///
/// ```
/// use mptunnel_core::options::{EndpointUri, Role};
///
/// let uri = "mpt://vpn.example.org:4000?key-file=/etc/mpt.key&path=if=a&path=if=b,weight=3";
/// let endpoint: EndpointUri = uri.parse()?;
///
/// assert_eq!(endpoint.role, Role::Client);
/// assert_eq!(endpoint.at.to_string(), "vpn.example.org:4000");
/// assert_eq!(endpoint.paths[1].weight, 3);
/// # Ok::<(), mptunnel_core::options::UriError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointUri {
    /// Which end of a tunnel.
    pub role: Role,
    /// Client: the server. Server: where it listens (an IP address; port 0: the system chooses).
    pub at: HostPort,
    /// The options given, checked, in order.
    pub options: Vec<(&'static str, String)>,
    /// The paths given, each with a name.
    pub paths: Vec<PathSpec>,
}

/// Why a text does not describe an endpoint.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// It is neither `mpt://` nor `mpt-listen://`.
    #[error("expected mpt://HOST:PORT for a client or mpt-listen://ADDR:PORT for a server")]
    Scheme,
    /// What follows the scheme is no host and port.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is something between the port and the question mark.
    #[error("unexpected {0:?} after the port: options begin with a question mark")]
    Path(String),
    /// There is a bare `#`.
    #[error("unexpected \"#\": write it as %23")]
    Fragment,
    /// A percent sign is not followed by two hexadecimal digits, or these are no UTF-8.
    #[error("{0:?}: expected two hexadecimal digits of UTF-8 after each %, and %25 for % itself")]
    Percent(String),
    /// An item has no `=`.
    #[error("{0:?} has no value: expected KEY=VALUE between & signs")]
    NoValue(String),
    /// An option was not taken.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The same option twice.
    #[error("{key} is given twice: keep one of {first:?} and {second:?}")]
    Repeated {
        /// The option.
        key: &'static str,
        /// The first value.
        first: String,
        /// The second one.
        second: String,
    },
    /// A path is not understood.
    #[error("path={words:?}: {cause}")]
    PathSpec {
        /// What stands behind `path=`, decoded.
        words: String,
        /// What is wrong with it.
        cause: PathError,
    },
    /// Two paths of one name.
    #[error("two paths have the name {0:?}: names must differ")]
    DuplicateName(String),
    /// More paths than a session has room for.
    #[error("more than {MAX_PATHS} paths")]
    TooManyPaths,
    /// A server has no paths of its own.
    #[error("path is not for a server: it learns the paths of its clients")]
    PathOfServer,
}

impl EndpointUri {
    /// The defaults with the options of this URI.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        self.apply(&mut settings);
        settings
    }

    /// Sets the options of this URI in `settings`.
    pub fn apply(&self, settings: &mut Settings) {
        for (key, value) in &self.options {
            settings.set(key, value).expect("options were checked when the URI was parsed");
        }
    }

    /// Adds paths that were described elsewhere, and gives those without a name one.
    ///
    /// # Errors
    ///
    /// Those of a path in the URI itself.
    pub fn add_paths(&mut self, specs: impl IntoIterator<Item = PathSpec>) -> Result<(), UriError> {
        for spec in specs {
            self.take_spec(spec)?;
        }
        path::name_paths(&mut self.paths, Some(&self.at));
        Ok(())
    }

    fn take_option(&mut self, place: Place, key: &str, value: String) -> Result<(), UriError> {
        Settings::default().set(key, &value)?;
        let Some(spec) = OptionSpec::find(key) else { return Ok(()) };
        spec.check_place(place)?;
        if let Some((key, first)) = self.options.iter().find(|(other, _)| *other == spec.key) {
            return Err(UriError::Repeated { key, first: first.clone(), second: value });
        }
        self.options.push((spec.key, value));
        Ok(())
    }

    fn take_path(&mut self, words: String) -> Result<(), UriError> {
        match words.parse() {
            Ok(spec) => self.take_spec(spec),
            Err(_) if self.role == Role::Server => Err(UriError::PathOfServer),
            Err(cause) => Err(UriError::PathSpec { words, cause }),
        }
    }

    fn take_spec(&mut self, spec: PathSpec) -> Result<(), UriError> {
        if self.role == Role::Server {
            return Err(UriError::PathOfServer);
        }
        if self.paths.len() == MAX_PATHS {
            return Err(UriError::TooManyPaths);
        }
        spec.check_families(Some(&self.at))
            .map_err(|cause| UriError::PathSpec { words: spec.to_string(), cause })?;
        let twin = self.paths.iter().find(|path| path.name.is_some() && path.name == spec.name);
        if let Some(name) = twin.and_then(|path| path.name.clone()) {
            return Err(UriError::DuplicateName(name));
        }
        self.paths.push(spec);
        Ok(())
    }
}

impl FromStr for EndpointUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<EndpointUri, UriError> {
        let (role, place, rest) = if let Some(rest) = text.strip_prefix("mpt://") {
            (Role::Client, Place::ClientLibrary, rest)
        } else if let Some(rest) = text.strip_prefix("mpt-listen://") {
            (Role::Server, Place::ServerLibrary, rest)
        } else {
            return Err(UriError::Scheme);
        };
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match authority.find('/') {
            Some(at) => authority.split_at(at),
            None => (authority, ""),
        };
        if !matches!(path, "" | "/") {
            return Err(UriError::Path(path.to_owned()));
        }
        let at = percent_decode(authority)?;
        let at = match role {
            Role::Client => at.parse()?,
            Role::Server => HostPort::parse_local(&at)?,
        };
        let mut endpoint = EndpointUri { role, at, options: Vec::new(), paths: Vec::new() };
        for item in query.split('&').filter(|item| !item.is_empty()) {
            let Some((key, value)) = item.split_once('=') else {
                return Err(UriError::NoValue(item.to_owned()));
            };
            let (key, value) = (percent_decode(key)?, percent_decode(value)?);
            match key.as_str() {
                "path" => endpoint.take_path(value)?,
                key => endpoint.take_option(place, key, value)?,
            }
        }
        path::name_paths(&mut endpoint.paths, Some(&endpoint.at));
        Ok(endpoint)
    }
}

fn percent_decode(text: &str) -> Result<String, UriError> {
    let malformed = || UriError::Percent(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_first_chunk::<2>().ok_or_else(malformed)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let [Some(high), Some(low)] = digits.map(digit) else { return Err(malformed()) };
        bytes.push(high << 4 | low);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<EndpointUri, UriError> {
        text.parse()
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_client_has_a_server_options_and_paths() {
        let endpoint =
            parse("mpt://host:4000?key-file=/x&path=if=eth0&path=to=bridge1:4000,if=wwan0")
                .unwrap();

        assert_eq!((endpoint.role, endpoint.at.to_string().as_str()), (Role::Client, "host:4000"));
        assert_eq!(endpoint.settings().key_file.as_deref(), Some(Path::new("/x")));
        let paths: Vec<_> = endpoint.paths.iter().map(PathSpec::to_string).collect();
        assert_eq!(paths, ["if=eth0 name=host:4000", "to=bridge1:4000 if=wwan0 name=bridge1:4000"]);
    }

    #[test]
    fn a_server_listens_on_an_address_and_port_zero_is_allowed() {
        let endpoint = parse("mpt-listen://[::]:4000?key-file=/x&sessions=10").unwrap();
        assert_eq!((endpoint.role, endpoint.at.to_string().as_str()), (Role::Server, "[::]:4000"));
        assert_eq!(endpoint.settings().sessions, 10);

        assert_eq!(parse("mpt-listen://127.0.0.1:0").unwrap().at.port(), 0);
        assert!(error("mpt-listen://host:4000").contains("with an IP address"));
        assert!(error("mpt-listen://4000").contains("with an IP address"));
    }

    #[test]
    fn options_override_those_that_were_set_before_and_leave_the_others() {
        let mut settings = Settings::default();
        settings.set("mtu", "1400").unwrap();
        settings.set("window", "8192").unwrap();

        parse("mpt://h:1?window=4096").unwrap().apply(&mut settings);

        assert_eq!((settings.window, settings.mtu), (4096, 1400));
    }

    #[test]
    fn percent_signs_are_decoded_in_keys_values_and_paths_and_plus_is_a_plus() {
        let endpoint =
            parse("mpt://h:1/?%6bey-file=/a%20b%26c+d%C3%A4&path=to=[::1]:2%20name=x%231").unwrap();

        assert_eq!(endpoint.settings().key_file.as_deref(), Some(Path::new("/a b&c+dä")));
        assert_eq!(endpoint.paths[0].name.as_deref(), Some("x#1"));
        for text in ["%", "%2", "%2g", "%zz", "%ff", "%+1"] {
            let text = format!("mpt://h:1?name={text}");
            assert!(matches!(parse(&text), Err(UriError::Percent(_))), "{text}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        assert_eq!(
            error("http://host:1"),
            "expected mpt://HOST:PORT for a client or mpt-listen://ADDR:PORT for a server"
        );
        assert!(error("mpt://host").contains("has no port"));
        assert!(error("mpt://:1").contains("has no host"));
        assert!(error("mpt://host:0").contains("from 1 to 65535"));
        assert!(error("mpt://user@host:1").contains("neither an IP address nor a host name"));
        assert!(error("mpt://host:1/x?y=z").starts_with("unexpected \"/x\" after the port"));
        assert_eq!(error("mpt://host:1?name=a#b"), "unexpected \"#\": write it as %23");
        assert!(error("mpt://h:1?name").starts_with("\"name\" has no value"));
        assert_eq!(
            error("mpt://h:1?wndow=4096"),
            "unknown option \"wndow\": did you mean \"window\"?"
        );
        assert_eq!(
            error("mpt://h:1?window=1"),
            "window = \"1\": expected a whole number from 4096 to 4194304 packets"
        );
        assert_eq!(
            error("mpt://h:1?window=4096&window=8192"),
            "window is given twice: keep one of \"4096\" and \"8192\""
        );
        assert_eq!(
            error("mpt://h:1?path=wieght=3"),
            "path=\"wieght=3\": unknown word \"wieght=3\": did you mean \"weight=\"?"
        );
        assert!(error("mpt://10.0.0.1:1?path=src=::1").contains("one is IPv4, the other IPv6"));
        assert_eq!(
            error("mpt://h:1?path=name=a&path=name=a"),
            "two paths have the name \"a\": names must differ"
        );
    }

    #[test]
    fn options_of_the_other_end_or_of_the_programs_are_refused() {
        assert_eq!(
            error("mpt://h:1?sessions=10"),
            "sessions is not an option of a client: it belongs to server"
        );
        assert_eq!(
            error("mpt://h:1?listen=3000"),
            "listen is not an option of a client: it belongs to mpclient"
        );
        assert!(error("mpt-listen://[::]:1?path=if=a").starts_with("path is not for a server"));
    }

    #[test]
    fn an_endpoint_has_at_most_32_paths() {
        let uri = |n| format!("mpt://h:1?{}", "path=if=a&".repeat(n));

        assert_eq!(parse(&uri(MAX_PATHS)).unwrap().paths.len(), MAX_PATHS);
        assert_eq!(parse(&uri(MAX_PATHS + 1)), Err(UriError::TooManyPaths));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String, tail in "[a-z0-9:/?&=%,.\\[\\]-]{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("mpt://h:1?{text}"));
            if let Ok(endpoint) = parse(&format!("mpt://{tail}")) {
                endpoint.settings();
            }
        }
    }
}
