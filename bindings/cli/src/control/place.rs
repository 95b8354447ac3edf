// SPDX-License-Identifier: BSD-2-Clause
//! Where control sockets are: in a directory that only their owner can write to, named after the
//! program and its process, `mpclient-4711.sock`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Uid, geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

/// How many may wait for the thread that answers.
const BACKLOG: i32 = 8;
/// Bytes of a socket's name, with the zero at its end (unix(7)).
const ROOM_FOR_NAME: usize = 108;
/// Those of a name, to which one is added while the socket is made.
const LONGEST_NAME: usize = ROOM_FOR_NAME - 2;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The directory cannot be made or looked at.
    #[error("cannot use {} for the control socket", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// Others could put sockets of their own there.
    #[error(
        "{} is no place for a control socket: it has to be a directory that only you can write to \
         (chmod 700)", .0.display()
    )]
    NotPrivate(PathBuf),
    /// Something else has that name.
    #[error("{} exists and is no socket: choose another name with --control", .0.display())]
    NoSocket(PathBuf),
    /// A running program has that name.
    #[error(
        "{} belongs to a running program: choose another name with --control", .0.display()
    )]
    InUse(PathBuf),
    /// Too long for a socket.
    #[error(
        "the name {} is too long for a socket ({LONGEST_NAME} bytes): choose a shorter one with \
         --control", .0.display()
    )]
    TooLong(PathBuf),
    /// The system refuses.
    #[error("cannot make the control socket {}", .0.display())]
    Socket(PathBuf, #[source] io::Error),
}

/// A control socket that others can connect to; its name is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
}

impl Place {
    /// Makes the socket `path`, which only its owner can open from the first moment on.
    pub(crate) fn bind(path: &Path) -> Result<Place, PlaceError> {
        if path.as_os_str().len() > LONGEST_NAME {
            return Err(PlaceError::TooLong(path.to_owned()));
        }
        let failed = |error| PlaceError::Socket(path.to_owned(), error);
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.file_type().is_socket() => {
                return Err(PlaceError::NoSocket(path.to_owned()));
            }
            // What a program that was killed has left behind refuses.
            Ok(_) if is_left_behind(path) => fs::remove_file(path).map_err(failed)?,
            Ok(_) => return Err(PlaceError::InUse(path.to_owned())),
        }
        // It gets its name once it listens: until then it would refuse, as what was left behind
        // does. A link, unlike a new name, replaces nothing that has appeared in the meantime.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push("~");
        let _ = fs::remove_file(&unfinished);
        let bind = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Before it has a name: the file gets the mode that the socket has, less the umask
            // (unix_bind_bsd() of Linux).
            fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
            socket.bind(&SockAddr::unix(&unfinished)?)?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            fs::hard_link(&unfinished, path)?;
            Ok(UnixListener::from(std::os::fd::OwnedFd::from(socket)))
        };
        let listener = bind();
        let _ = fs::remove_file(&unfinished);
        Ok(Place { listener: listener.map_err(failed)?, path: path.to_owned() })
    }

    /// Makes the socket of this process in the directory where the tools look.
    pub(crate) fn bind_auto(program: &str, environment: &Places) -> Result<Place, PlaceError> {
        let directory = environment.own();
        make_private(&directory)?;
        for socket in sockets_in(&directory).unwrap_or_default() {
            if is_left_behind(&socket) {
                // Somebody else may have been quicker.
                let _ = fs::remove_file(socket);
            }
        }
        Place::bind(&directory.join(format!("{program}-{}.sock", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The directories for control sockets, as the environment has them.
#[derive(Clone, Debug)]
pub struct Places {
    /// `XDG_RUNTIME_DIR`, a directory of this user only.
    pub user: Option<PathBuf>,
    /// That of the system, `/run`.
    pub system: PathBuf,
    /// That of temporary files.
    pub temporary: PathBuf,
    /// Who asks.
    pub uid: u32,
}

impl Places {
    /// Those of this process.
    pub fn of_process() -> Places {
        let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Places {
            // As the XDG base directory specification has it: a relative name is none.
            user: user.filter(|directory| directory.is_absolute()),
            system: PathBuf::from("/run"),
            temporary: std::env::temp_dir(),
            uid: geteuid().as_raw(),
        }
    }

    /// Where a new socket goes.
    fn own(&self) -> PathBuf {
        match &self.user {
            Some(user) => user.join("mptunnel"),
            None if Uid::from_raw(self.uid).is_root() => self.system.join("mptunnel"),
            None => self.temporary.join(format!("mptunnel-{}", self.uid)),
        }
    }

    /// Where sockets that this user may open can be.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let mut all = vec![
            self.own(),
            self.system.join("mptunnel"),
            self.temporary.join(format!("mptunnel-{}", self.uid)),
        ];
        if Uid::from_raw(self.uid).is_root() {
            let users = fs::read_dir(self.system.join("user")).into_iter().flatten().flatten();
            all.extend(users.map(|user| user.path().join("mptunnel")));
        }
        all.dedup();
        all
    }
}

/// The sockets of mpclients and mpservers in a directory; none if it does not exist.
///
/// # Errors
///
/// It cannot be read, or others could put sockets of their own there.
pub(crate) fn sockets_in(directory: &Path) -> Result<Vec<PathBuf>, PlaceError> {
    let failed = |error| PlaceError::Directory(directory.to_owned(), error);
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !is_private(&found) => {
            return Err(PlaceError::NotPrivate(directory.to_owned()));
        }
        Ok(_) => {}
    }
    let mut sockets = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_ours = |name: &str| {
            name.ends_with(".sock")
                && (name.starts_with("mpclient-") || name.starts_with("mpserver-"))
        };
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_ours) {
            sockets.push(path);
        }
    }
    sockets.sort();
    Ok(sockets)
}

fn make_private(directory: &Path) -> Result<(), PlaceError> {
    let failed = |error| PlaceError::Directory(directory.to_owned(), error);
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    match fs::symlink_metadata(directory) {
        Err(error) => Err(failed(error)),
        Ok(found) if is_private(&found) => Ok(()),
        Ok(_) => Err(PlaceError::NotPrivate(directory.to_owned())),
    }
}

/// Whether only its owner, who is this user or root, can put something into a directory. A root
/// looks into the directories of others.
fn is_private(found: &fs::Metadata) -> bool {
    let me = geteuid();
    let is_mine = found.uid() == me.as_raw() || found.uid() == 0 || me.is_root();
    found.is_dir() && is_mine && found.mode() & 0o022 == 0
}

/// Whether nobody answers at a socket.
fn is_left_behind(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// Places below a user's directory, and where the sockets are there.
    fn below(home: &Path) -> (Places, PathBuf) {
        let none = home.join("none");
        let user = Some(home.to_owned());
        let places = Places { user, system: none.clone(), temporary: none, uid: 1_000 };
        (places, home.join("mptunnel"))
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_socket_is_its_owners_alone_and_its_name_goes_with_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");

        let place = Place::bind(&path).unwrap();

        assert_eq!(mode(&path), 0o600);
        drop(place);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_program_left_behind_is_replaced_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let place = Place::bind(&path).unwrap();

        assert!(matches!(Place::bind(&path), Err(PlaceError::InUse(_))));
        drop(place);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Place::bind(&path), Err(PlaceError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let long = home.path().join("x".repeat(LONGEST_NAME));
        assert!(matches!(Place::bind(&long), Err(PlaceError::TooLong(_))));
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let (places, directory) = below(home.path());

        let place = Place::bind_auto("mpclient", &places).unwrap();
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(sockets_in(&directory).unwrap(), [place.path.as_path()]);
        drop(place);

        chmod(&directory, 0o770);
        let refused = Place::bind_auto("mpclient", &places);
        assert!(matches!(refused, Err(PlaceError::NotPrivate(_))), "{refused:?}");
        assert!(matches!(sockets_in(&directory), Err(PlaceError::NotPrivate(_))));
        fs::remove_dir(&directory).unwrap();
        std::os::unix::fs::symlink("/tmp", &directory).unwrap();
        assert!(matches!(sockets_in(&directory), Err(PlaceError::NotPrivate(_))));
    }

    #[test]
    fn sockets_of_killed_programs_are_cleared_away_by_the_next_one() {
        let home = tempfile::tempdir().unwrap();
        let (places, directory) = below(home.path());
        make_private(&directory).unwrap();
        drop(UnixListener::bind(directory.join("mpserver-1.sock")).unwrap());
        fs::write(directory.join("notes"), "").unwrap();

        let place = Place::bind_auto("mpclient", &places).unwrap();

        assert_eq!(sockets_in(&directory).unwrap(), [place.path.as_path()]);
        assert!(directory.join("notes").exists());
    }
}
