//! Puts functions in the place of those that Python and its extension modules import from the C library.
//!
//! A loaded object calls other objects through a table of addresses (its GOT), which the loader fills in. Changing an
//! entry redirects the calls of that one object: no Python object changes, every alias is reached, and neither the C
//! library nor our own code nor the host's sees any of it. An entry that somebody else has changed is left alone.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{dl_phdr_info, size_t};
use parking_lot::Mutex;

use super::sealed::ReadOnly;
use super::{errors, signals, waits};

type Address = usize;

/// Whose calls are redirected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Every object that is looked at.
    All,
    /// The one that holds Python: its semaphores are its locks.
    Python,
    /// The module whose semaphores are shared by processes.
    Multiprocessing,
}

/// A stand-in, and the names that it stands in for.
struct StandIn {
    of: Of,
    names: &'static [&'static CStr],
    address: Address,
}

macro_rules! table {
    ($($of:ident: $($name:literal)|+ => $function:path,)*) => {
        [$(StandIn { of: Of::$of, names: &[$($name),+], address: $function as *const () as usize }),*]
    };
}

#[rustfmt::skip]
fn stand_ins() -> Vec<StandIn> {
    Vec::from(table![
        All: c"read" => waits::read, All: c"__read_chk" => waits::read_checked, All: c"readv" => waits::readv,
        All: c"pread" | c"pread64" => waits::pread, All: c"preadv2" | c"preadv64v2" => waits::preadv2,
        All: c"write" => waits::write, All: c"writev" => waits::writev, All: c"pwrite" | c"pwrite64" => waits::pwrite,
        All: c"pwritev2" | c"pwritev64v2" => waits::pwritev2,
        All: c"sendfile" | c"sendfile64" => waits::sendfile, All: c"splice" => waits::splice,
        All: c"poll" => waits::poll, All: c"__poll_chk" => waits::poll_checked, All: c"ppoll" => waits::ppoll,
        All: c"select" => waits::select, All: c"pselect" => waits::pselect,
        All: c"epoll_wait" => waits::epoll_wait, All: c"epoll_pwait" => waits::epoll_pwait,
        All: c"recv" => waits::recv, All: c"__recv_chk" => waits::recv_checked, All: c"recvfrom" => waits::recvfrom,
        All: c"__recvfrom_chk" => waits::recvfrom_checked, All: c"recvmsg" => waits::recvmsg, All: c"recvmmsg" => waits::recvmmsg,
        All: c"send" => waits::send, All: c"sendto" => waits::sendto, All: c"sendmsg" => waits::sendmsg,
        All: c"accept" => waits::accept, All: c"accept4" => waits::accept4, All: c"connect" => waits::connect,
        All: c"wait" => waits::wait, All: c"wait3" => waits::wait3, All: c"wait4" => waits::wait4, All: c"waitpid" => waits::waitpid,
        All: c"waitid" => waits::waitid, All: c"nanosleep" => waits::nanosleep, All: c"clock_nanosleep" => waits::clock_nanosleep,
        All: c"flock" => waits::flock, All: c"lockf" | c"lockf64" => waits::lockf, All: c"fcntl" | c"fcntl64" => waits::fcntl,
        All: c"open" | c"open64" => waits::open, All: c"openat" | c"openat64" => waits::openat,
        All: c"sigwait" => waits::sigwait, All: c"sigwaitinfo" => waits::sigwaitinfo, All: c"sigtimedwait" => waits::sigtimedwait,
        Python: c"sem_wait" => waits::sem_wait, Python: c"sem_timedwait" => waits::sem_timedwait,
        Python: c"sem_clockwait" => waits::sem_clockwait_until, Python: c"perror" => waits::quiet_perror,
        Multiprocessing: c"sem_wait" => waits::shared_sem_wait, Multiprocessing: c"sem_timedwait" => waits::shared_sem_timedwait,
            All: c"PyErr_SetFromErrno" => errors::set_from_errno,
        All: c"PyErr_SetFromErrnoWithFilenameObject" => errors::set_with_name,
        All: c"PyErr_SetFromErrnoWithFilenameObjects" => errors::set_with_names,
        Python: c"pthread_sigmask" => signals::pthread_sigmask,
    ])
}

/// What stands where, known before an object is looked at: the loader's lock is held then.
struct Table {
    entries: HashMap<&'static CStr, Vec<(Of, Address)>>,
    /// What the names stand for in the whole process.
    originals: HashMap<&'static CStr, Address>,
    /// Places in Python's object and in ours.
    python: usize,
    ours: usize,
    /// How many objects the loader had loaded in all when every one of them was looked at.
    seen: u64,
}

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// Redirects the calls of all that is loaded. `Err` says why waits can't be ended here.
pub(super) fn install() -> Result<(), &'static str> {
    let mut table = TABLE.lock();
    if table.is_some() {
        return Ok(());
    }
    let python = pyo3::ffi::Py_GetVersion as *const () as usize;
    let ours = install as *const () as usize;
    if object_of(python) == object_of(ours) {
        return Err("Python is linked into the program");
    }
    if ReadOnly::of_this_process().is_none() {
        return Err("/proc/self/maps can't be read");
    }
    let fresh = table.insert(Table::new(python, ours));
    fresh.look();
    Ok(())
}

/// Redirects the calls of what was loaded since.
pub(crate) fn refresh() {
    if let Some(table) = &mut *TABLE.lock() {
        table.look();
    }
}

/// Returns where the object begins that holds an address.
fn object_of(address: usize) -> *const c_void {
    // SAFETY: all-zero is a valid value of its pointers.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for; `info` is a valid place.
    unsafe { libc::dladdr(address as *const c_void, &raw mut info) };
    info.dli_fbase
}

impl Table {
    fn new(python: usize, ours: usize) -> Self {
        let mut entries: HashMap<_, Vec<_>> = HashMap::new();
        let mut originals = HashMap::new();
        for stand_in in stand_ins() {
            for &name in stand_in.names {
                entries
                    .entry(name)
                    .or_default()
                    .push((stand_in.of, stand_in.address));
                // SAFETY: `name` is a C string; the answer is only compared with.
                let original = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
                originals.insert(name, original as usize);
            }
        }
        Self {
            entries,
            originals,
            python,
            ours,
            seen: 0,
        }
    }

    /// Looks at every loaded object, unless none was added since the last look.
    fn look(&mut self) {
        let mut counted = 0u64;
        each_object(|info| {
            counted = info.dlpi_adds;
            false
        });
        if counted == self.seen {
            return;
        }
        let chosen = self.chosen();
        let (mut pages, mut all_done) = (None, true);
        each_object(|info| {
            // Read under the loader's lock: what is in its list now was mapped before.
            let pages = pages.get_or_insert_with(ReadOnly::of_this_process);
            // SAFETY: the loader's own description, valid during the callback.
            if let Some(object) = unsafe { Object::of(info) }
                && let Some((_, of)) = chosen.iter().find(|(base, _)| *base == object.base)
            {
                // Before, the loader still fills its tables in, and would fault on a page that we make read-only.
                let is_done = object.is_relocated(pages.as_ref());
                all_done &= is_done;
                if is_done {
                    self.redirect(&object, of);
                }
            }
            true
        });
        if all_done {
            self.seen = counted;
        }
    }

    /// Returns where the objects begin whose calls are redirected, each with what it is: Python, what uses Python
    /// (but for the program and us), and the libraries that those need.
    fn chosen(&self) -> Vec<(usize, Vec<Of>)> {
        let mut described = Vec::new();
        each_object(|info| {
            // SAFETY: as in `look`.
            described.extend(unsafe { Object::of(info) }.map(|object| object.described(self)));
            true
        });
        let mut wanted: Vec<CString> = Vec::new();
        let mut chosen = Vec::new();
        loop {
            let is_chosen = |found: &Described| {
                found.is_python || found.uses_python || wanted.contains(&found.name)
            };
            let Some(at) = described.iter().position(is_chosen) else {
                return chosen;
            };
            let found = described.swap_remove(at);
            wanted.extend(found.needs);
            let mut of = vec![Of::All];
            of.extend(found.is_python.then_some(Of::Python));
            of.extend(found.is_multiprocessing.then_some(Of::Multiprocessing));
            chosen.push((found.base, of));
        }
    }

    fn redirect(&self, object: &Object<'_>, of: &[Of]) {
        for (name, slot) in object.imports() {
            let stand_in = self
                .entries
                .get(name)
                .and_then(|choices| choices.iter().find(|(whose, _)| of.contains(whose)));
            if let Some((_, address)) = stand_in {
                object.replace(slot, self.originals[name], *address);
            }
        }
    }
}

/// Calls `look` with each loaded object until it answers `false`.
fn each_object(mut look: impl FnMut(&dl_phdr_info) -> bool) {
    unsafe extern "C" fn call<F: FnMut(&dl_phdr_info) -> bool>(
        info: *mut dl_phdr_info,
        _size: size_t,
        look: *mut c_void,
    ) -> c_int {
        // SAFETY: `look` is the closure below, and the loader's description is valid during the call.
        let goes_on = unsafe { (*look.cast::<F>())(&*info) };
        c_int::from(!goes_on)
    }
    fn caller<F: FnMut(&dl_phdr_info) -> bool>(
        _: &F,
    ) -> unsafe extern "C" fn(*mut dl_phdr_info, size_t, *mut c_void) -> c_int {
        call::<F>
    }
    let callback = caller(&look);
    // SAFETY: the callback casts its last argument to the type that it is.
    unsafe { libc::dl_iterate_phdr(Some(callback), (&raw mut look).cast()) };
}

#[repr(C)]
struct Dynamic {
    tag: i64,
    value: usize,
}

#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

#[repr(C)]
struct Relocation {
    offset: u64,
    info: u64,
    addend: i64,
}

#[cfg(target_arch = "x86_64")]
const SLOT_KINDS: [u32; 2] = [7, 6]; // R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT
#[cfg(target_arch = "aarch64")]
const SLOT_KINDS: [u32; 2] = [1026, 1025]; // R_AARCH64_JUMP_SLOT, R_AARCH64_GLOB_DAT

const DT_NEEDED: i64 = 1;
const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_SONAME: i64 = 14;
const DT_JMPREL: i64 = 23;

/// A loaded object, while the loader's lock is held.
struct Object<'a> {
    base: usize,
    path: &'a CStr,
    segments: &'a [libc::Elf64_Phdr],
    dynamic: &'a [Dynamic],
    strings: *const libc::c_char,
    symbols: *const Symbol,
}

/// What is kept of an object after the loader's lock is given up.
struct Described {
    base: usize,
    /// The name by which others need it.
    name: CString,
    needs: Vec<CString>,
    is_python: bool,
    uses_python: bool,
    is_multiprocessing: bool,
}

impl<'a> Object<'a> {
    /// Reads an object's headers. `None` for what has no tables of its own to change.
    ///
    /// # Safety
    /// `info` comes from the loader, during its callback.
    unsafe fn of(info: &'a dl_phdr_info) -> Option<Self> {
        // SAFETY: the loader's own array.
        let segments =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        // SAFETY: a C string of the loader's.
        let path = unsafe { CStr::from_ptr(info.dlpi_name) };
        let base = info.dlpi_addr as usize;
        if path.to_bytes().starts_with(b"linux-vdso") {
            return None;
        }
        let segment = segments
            .iter()
            .find(|segment| segment.p_type == libc::PT_DYNAMIC)?;
        let first = (base + segment.p_vaddr as usize) as *const Dynamic;
        let count = segment.p_memsz as usize / size_of::<Dynamic>();
        // SAFETY: the segment lies in memory from there on, in this size.
        let dynamic = unsafe { std::slice::from_raw_parts(first, count) };
        let mut object = Self {
            base,
            path,
            segments,
            dynamic,
            strings: std::ptr::null(),
            symbols: std::ptr::null(),
        };
        object.strings = object.table(DT_STRTAB)? as *const libc::c_char;
        object.symbols = object.table(DT_SYMTAB)? as *const Symbol;
        Some(object)
    }

    fn values(&self, tag: i64) -> impl Iterator<Item = usize> {
        let entries = self.dynamic.iter().take_while(|entry| entry.tag != 0);
        entries
            .filter(move |entry| entry.tag == tag)
            .map(|entry| entry.value)
    }

    /// Returns where a table is. The loader has made its address absolute, on most processors.
    fn table(&self, tag: i64) -> Option<usize> {
        let value = self.values(tag).next()?;
        Some(if value < self.base {
            self.base + value
        } else {
            value
        })
    }

    fn string(&self, offset: usize) -> &'a CStr {
        // SAFETY: offsets in an object's tables lie within its strings, each of which ends with a null.
        unsafe { CStr::from_ptr(self.strings.add(offset)) }
    }

    /// Returns the names that the object calls through its table of addresses (some may be its own), each with its entry in the table of addresses.
    fn imports(&self) -> impl Iterator<Item = (&'a CStr, *const AtomicUsize)> {
        let tables = [(DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)];
        tables
            .into_iter()
            .flat_map(|(tag, size)| self.relocations(tag, size))
            .filter_map(|relocation| {
                let (symbol, kind) = ((relocation.info >> 32) as usize, relocation.info as u32);
                if symbol == 0 || !SLOT_KINDS.contains(&kind) {
                    return None;
                }
                // SAFETY: relocations refer to the object's own symbols.
                let symbol = unsafe { &*self.symbols.add(symbol) };
                let slot = (self.base + relocation.offset as usize) as *const AtomicUsize;
                Some((self.string(symbol.name as usize), slot))
            })
    }

    fn relocations(&self, tag: i64, size: i64) -> &'a [Relocation] {
        let (Some(first), Some(bytes)) = (self.table(tag), self.values(size).next()) else {
            return &[];
        };
        // SAFETY: the object's own table, in the size that it states.
        unsafe {
            std::slice::from_raw_parts(first as *const Relocation, bytes / size_of::<Relocation>())
        }
    }

    fn contains(&self, address: usize) -> bool {
        self.segments.iter().any(|segment| {
            let start = self.base + segment.p_vaddr as usize;
            segment.p_type == libc::PT_LOAD
                && (start..start + segment.p_memsz as usize).contains(&address)
        })
    }

    fn described(&self, table: &Table) -> Described {
        let file = self
            .path
            .to_bytes()
            .rsplit(|byte| *byte == b'/')
            .next()
            .unwrap_or_default();
        let soname = self
            .values(DT_SONAME)
            .next()
            .map(|offset| self.string(offset).to_owned());
        let is_python = self.contains(table.python);
        // The program has an empty path; the C library's objects need none of this.
        let is_other = !is_python && !self.contains(table.ours) && !self.path.is_empty();
        let system = is_system(file);
        let of_python =
            |name: &CStr| name.to_bytes().starts_with(b"Py") || name.to_bytes().starts_with(b"_Py");
        Described {
            base: self.base,
            name: soname.unwrap_or_else(|| CString::new(file).unwrap_or_default()),
            needs: self
                .values(DT_NEEDED)
                .map(|offset| self.string(offset).to_owned())
                .filter(|name| !is_system(name.to_bytes()) && !is_python)
                .collect(),
            is_python,
            uses_python: is_other && !system && self.imports().any(|(name, _)| of_python(name)),
            is_multiprocessing: file.starts_with(b"_multiprocessing."),
        }
    }

    /// Changes an entry that is as the loader made it.
    fn replace(&self, slot: *const AtomicUsize, original: Address, stand_in: Address) {
        // SAFETY: an entry of a loaded object's table; only whole addresses are read and written there.
        let entry = unsafe { &*slot };
        let present = entry.load(Ordering::Acquire);
        // Not looked up yet: the entry leads into the object itself.
        if present != original && !self.contains(present) {
            return;
        }
        let sealed = self.is_sealed(slot as usize);
        if sealed && !protect(slot as usize, libc::PROT_READ | libc::PROT_WRITE) {
            return;
        }
        entry.store(stand_in, Ordering::Release);
        if sealed {
            protect(slot as usize, libc::PROT_READ);
        }
    }

    /// Returns whether the loader has filled the object's tables in: it makes them read-only at last. An object without
    /// such pages counts as done, since nothing of it is ever made read-only.
    fn is_relocated(&self, pages: Option<&ReadOnly>) -> bool {
        self.sealed_ranges()
            .all(|range| pages.is_some_and(|pages| pages.contain(&range)))
    }

    /// Returns whether a place is on a page that the loader has made read-only after it had filled it in.
    fn is_sealed(&self, address: usize) -> bool {
        self.sealed_ranges().any(|range| range.contains(&address))
    }

    fn sealed_ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let sealed = self
            .segments
            .iter()
            .filter(|segment| segment.p_type == libc::PT_GNU_RELRO);
        let ranges = sealed.map(|segment| {
            let start = self.base + segment.p_vaddr as usize;
            // The last page stays writable unless the range fills it.
            page_of(start)..page_of(start + segment.p_memsz as usize)
        });
        ranges.filter(|range| !range.is_empty())
    }
}

/// Returns whether a file is one of the C library and the compiler's support.
fn is_system(file: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"libc.so",
        b"libpthread.so",
        b"libm.so",
        b"libdl.so",
        b"librt.so",
        b"libutil.so",
        b"libgcc_s.so",
        b"libstdc++.so",
        b"ld-linux",
    ];
    NAMES.iter().any(|name| file.starts_with(name))
}

fn page_bytes() -> usize {
    // SAFETY: asks for a constant of the system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.unsigned_abs() as usize
}

/// Returns where the page of an address begins.
fn page_of(address: usize) -> usize {
    address & !(page_bytes() - 1)
}

/// Sets what may be done with the page of an address.
fn protect(address: usize, protection: c_int) -> bool {
    let start = page_of(address) as *mut c_void;
    // SAFETY: the page holds a loaded object's table; it stays readable throughout.
    unsafe { libc::mprotect(start, page_bytes(), protection) == 0 }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fmt::Write;
    use std::path::Path;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::Table;

    const OPENINGS: usize = 6000;

    /// Makes an object that uses Python and whose table of addresses takes the loader long to fill in.
    fn slow_object(folder: &Path) -> CString {
        let (mut needed, mut user) = (String::new(), String::new());
        for number in 0..400 {
            let _ = writeln!(needed, "void needed_{number}(void) {{}}");
            let _ = writeln!(user, "void needed_{number}(void);");
        }
        user += "long read(); long write(); int poll(); int select(); void PyErr_Clear(void);\n\
            void uses(void) { read(); write(); poll(); select(); PyErr_Clear();\n";
        for number in 0..400 {
            let _ = writeln!(user, "needed_{number}();");
        }
        user += "}\n";
        let build = |name: &str, source: &str, others: &[&Path]| {
            let (text, object) = (
                folder.join(name).with_extension("c"),
                folder.join(name).with_extension("so"),
            );
            std::fs::write(&text, source).unwrap();
            let mut compiler = Command::new("cc");
            compiler.args(["-w", "-shared", "-fPIC", "-fno-plt", "-fno-builtin"]);
            compiler.args(["-Wl,-z,relro,-z,now", "-o"]);
            let status = compiler.arg(&object).arg(&text).args(others).status();
            assert!(status.unwrap().success());
            object
        };
        let needed = build("needed", &needed, &[]);
        let user = build("user", &user, &[&needed]);
        CString::new(user.to_str().unwrap()).unwrap()
    }

    /// An object is in the loader's list before its tables are filled in: a page of them that was made read-only
    /// meanwhile would end the process.
    #[test]
    fn looking_does_not_disturb_the_loader() {
        let folder = tempfile::tempdir().unwrap();
        let path = slow_object(folder.path());
        let python = pyo3::ffi::Py_GetVersion as *const () as usize;
        let mut table = Table::new(python, super::install as *const () as usize);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    table.look();
                    // Whoever lets the loader's lock go takes it again before anybody who waits for it.
                    std::thread::sleep(std::time::Duration::from_micros(20));
                }
            });
            for _ in 0..OPENINGS {
                // SAFETY: loads an object whose tables alone are used, and unloads it.
                unsafe {
                    let object = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
                    assert!(!object.is_null());
                    libc::dlclose(object);
                }
            }
            ended.store(true, Ordering::Relaxed);
        });
    }
}
