//! The object file: parsed, loaded against pinned maps, attached.

use crate::config::CaptureConfig;
use crate::error::CaptureError;
use crate::pins::{Pins, cgroup_id};
use aya::maps::{MapData, MapError, RingBuf};
use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, Program, ProgramError};
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use kedge_abi::{map, program};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

pub(crate) type Logger = EbpfLogger<&'static dyn log::Log>;

pub(crate) struct Loaded(Ebpf);

/// Creates or opens the maps and loads every program; attaches nothing.
pub(crate) fn load(
    config: &CaptureConfig,
    pins: &Pins,
    object: &[u8],
) -> Result<Loaded, CaptureError> {
    let maps = map::TABLES.iter().chain(map::STATE);
    let paths: Vec<(&str, PathBuf)> = maps.map(|name| (*name, pins.map(name))).collect();
    let log_level = u8::from(config.debug) * LOG_LEVEL_DEBUG;
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &log_level, false);
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    let ebpf = loader.load(object).map_err(Box::new)?;
    let mut loaded = Loaded(ebpf);
    for name in program::ALL {
        let program = loaded.program(name)?;
        load_program(program).map_err(program_error(name))?;
    }
    Ok(loaded)
}

/// `aya_log_common::Level::Debug`; 0 is off.
const LOG_LEVEL_DEBUG: u8 = 4;

impl Loaded {
    fn program(&mut self, name: &'static str) -> Result<&mut Program, CaptureError> {
        let missing = || CaptureError::Object {
            what: "program",
            name: name.to_owned(),
        };
        self.0.program_mut(name).ok_or_else(missing)
    }

    /// Puts every program on its hook in the order of [`program::ALL`], each at once and for
    /// good; `after_each` is told its name.
    pub(crate) fn attach(
        &mut self,
        pins: &Pins,
        cgroup: &Path,
        mut after_each: impl FnMut(&'static str),
    ) -> Result<(), CaptureError> {
        let system = |operation| CaptureError::system(operation, cgroup.display());
        let directory = File::open(cgroup).map_err(system("open cgroup"))?;
        let id = cgroup_id(cgroup).map_err(system("stat cgroup"))?;
        for name in program::ALL {
            let program = self.program(name)?;
            let fd = program.fd().map_err(program_error(name))?;
            let taken = pins.take_over(name, fd.as_fd(), id);
            if !taken.map_err(CaptureError::system("take over", name))? {
                let link = attach_program(program, &directory).map_err(program_error(name))?;
                let path = pins
                    .new_link(name)
                    .map_err(CaptureError::system("pin", name))?;
                pin(link, &path)?;
                pins.replace_link(name)
                    .map_err(CaptureError::system("pin", name))?;
            }
            after_each(name);
        }
        Ok(())
    }

    pub(crate) fn ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, CaptureError> {
        let map = self.0.take_map(name).ok_or_else(|| missing_map(name))?;
        RingBuf::try_from(map)
            .map_err(|error: MapError| CaptureError::Load(Box::new(EbpfError::from(error))))
    }

    /// `None` where the programs were built without their log statements.
    pub(crate) fn logger(&mut self) -> Option<Logger> {
        EbpfLogger::init(&mut self.0).ok()
    }
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Links always stand beside each other; the kernel refuses the mode that says so.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn attach_program(program: &mut Program, cgroup: &File) -> Result<FdLink, ProgramError> {
    let link = match program {
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSkb(program) => {
            let direction = program.expected_attach_type();
            let direction = direction.ok_or(ProgramError::UnexpectedProgramType)?;
            let id = program.attach(cgroup, direction, MODE)?;
            program.take_link(id)?.try_into()
        }
        Program::SockOps(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into()
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, MODE)?;
            program.take_link(id)?.try_into()
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    // Before Linux 5.7 there are no cgroup links, and nothing that could be pinned.
    link.map_err(|_: LinkError| ProgramError::NotAttached)
}

fn pin(link: FdLink, path: &Path) -> Result<(), CaptureError> {
    let pinned = link.pin(path);
    let pinned = pinned.map_err(|source| CaptureError::Pin {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    // The pin keeps the link; our descriptor of it is not needed any more.
    drop(pinned);
    Ok(())
}

fn program_error(program: &'static str) -> impl FnOnce(ProgramError) -> CaptureError {
    move |source| CaptureError::Program {
        program,
        source: Box::new(source),
    }
}

fn missing_map(name: &str) -> CaptureError {
    CaptureError::Object {
        what: "map",
        name: name.to_owned(),
    }
}
