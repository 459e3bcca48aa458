//! Character devices and what is attached to them: console, QMP, guest channel.

use super::option::Opts;

/// A character device (`-chardev`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chardev {
    /// Its name for others.
    pub id: String,
    /// What is behind it.
    pub backend: ChardevBackend,
}

/// What is behind a character device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChardevBackend {
    /// A UNIX socket.
    Socket {
        /// Where.
        path: String,
        /// QEMU listens instead of connecting.
        server: bool,
        /// With `server`: do not start only once somebody has connected.
        wait: bool,
    },
    /// A file that is written.
    File {
        /// Where.
        path: String,
        /// What is there stays.
        append: bool,
    },
    /// A pipe: QEMU opens this FIFO for reading and writing.
    Pipe {
        /// Where.
        path: String,
    },
    /// QEMU's own standard output.
    Stdio {
        /// Ctrl-C and the like reach QEMU as signals.
        signal: bool,
    },
}

impl Chardev {
    pub(super) fn args(&self) -> [String; 2] {
        let value = match &self.backend {
            ChardevBackend::Socket { path, server, wait } => {
                let value = Opts::new("socket").set("id", &self.id).set("path", path);
                if *server { value.flag("server", true).flag("wait", *wait) } else { value }
            }
            ChardevBackend::File { path, append } => {
                Opts::new("file").set("id", &self.id).set("path", path).flag("append", *append)
            }
            ChardevBackend::Pipe { path } => Opts::new("pipe").set("id", &self.id).set("path", path),
            ChardevBackend::Stdio { signal } => {
                Opts::new("stdio").set("id", &self.id).flag("signal", *signal)
            }
        };
        ["-chardev".to_owned(), value.finish()]
    }
}

/// A serial port of the board (`-serial`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serial {
    /// Which character device.
    pub chardev: String,
}

impl Serial {
    pub(super) fn args(&self) -> [String; 2] {
        ["-serial".to_owned(), format!("chardev:{}", self.chardev)]
    }
}

/// The control channel (`-mon mode=control`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qmp {
    /// Which character device.
    pub chardev: String,
}

impl Qmp {
    pub(super) fn args(&self) -> [String; 2] {
        let value = Opts::keyed("chardev", &self.chardev).set("mode", "control");
        ["-mon".to_owned(), value.finish()]
    }
}
