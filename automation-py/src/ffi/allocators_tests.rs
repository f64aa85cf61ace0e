//! The hooks against a model: every block has one owner, and what is charged is what its living blocks have.

use std::collections::BTreeMap;
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use proptest::prelude::*;
use pyo3::ffi::PyMemAllocatorEx;

use super::{Previous, raw_calloc, raw_free, raw_malloc, raw_realloc, usable_bytes};
use crate::ffi::tally::{LIVING, Memory, charge_nobody};

const OWNERS: usize = 3;
const LIMIT: u64 = 300_000;

extern "C" fn c_malloc(_: *mut libc::c_void, bytes: usize) -> *mut libc::c_void {
    // SAFETY: any size is right.
    unsafe { libc::malloc(bytes.max(1)) }
}

extern "C" fn c_calloc(_: *mut libc::c_void, count: usize, size: usize) -> *mut libc::c_void {
    // SAFETY: any size is right.
    unsafe { libc::calloc(count.max(1), size.max(1)) }
}

extern "C" fn c_realloc(
    _: *mut libc::c_void,
    block: *mut libc::c_void,
    bytes: usize,
) -> *mut libc::c_void {
    // SAFETY: the hooks give what they got.
    unsafe { libc::realloc(block, bytes.max(1)) }
}

extern "C" fn c_free(_: *mut libc::c_void, block: *mut libc::c_void) {
    // SAFETY: the hooks give what they got.
    unsafe { libc::free(block) }
}

/// What CPython has in the raw domain, for which no interpreter has to run. One test at a time counts tallies.
fn prepare() -> parking_lot::MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let raw = PyMemAllocatorEx {
        ctx: null_mut(),
        malloc: Some(c_malloc),
        calloc: Some(c_calloc),
        realloc: Some(c_realloc),
        free: Some(c_free),
    };
    let guard = ALONE.lock();
    super::keep(&raw).unwrap();
    guard
}

/// One call of the interpreter: which block, how large, for whom (the last: nobody).
#[derive(Debug, Clone)]
enum Call {
    Malloc(usize, usize, usize),
    Calloc(usize, usize, usize),
    Realloc(usize, usize, usize),
    Free(usize),
    /// The owner's run ends.
    End(usize),
}

fn call() -> impl Strategy<Value = Call> {
    let sizes = prop_oneof![0..64_usize, 500..5000_usize, 4000..200_000_usize];
    let block = 0..12_usize;
    let owner = 0..=OWNERS;
    prop_oneof![
        4 => (block.clone(), sizes.clone(), owner.clone()).prop_map(|(b, s, o)| Call::Malloc(b, s, o)),
        2 => (block.clone(), sizes.clone(), owner.clone()).prop_map(|(b, s, o)| Call::Calloc(b, s, o)),
        4 => (block.clone(), sizes, owner).prop_map(|(b, s, o)| Call::Realloc(b, s, o)),
        4 => block.prop_map(Call::Free),
        1 => (0..OWNERS).prop_map(Call::End),
    ]
}

/// The owner in the model that is not in the table any more.
const GONE: usize = usize::MAX;

/// A living block: where, how many bytes of it are written to, and whose it is.
type Block = (*mut libc::c_void, usize, Option<usize>);

#[derive(Default)]
struct Model {
    owners: [Option<Memory>; OWNERS],
    blocks: BTreeMap<usize, Block>,
}

impl Model {
    fn apply(&mut self, call: &Call) {
        match *call {
            Call::Malloc(place, bytes, owner) => {
                self.fill(place, bytes, owner, |bytes| raw_malloc(null_mut(), bytes))
            }
            Call::Calloc(place, bytes, owner) => {
                self.fill(place, bytes, owner, |bytes| {
                    raw_calloc(null_mut(), bytes, 1)
                });
            }
            Call::Realloc(place, bytes, owner) => self.resize(place, bytes, owner),
            Call::Free(place) => self.free(place),
            Call::End(owner) => {
                self.owners[owner] = None;
                for block in self.blocks.values_mut() {
                    block.2 = block.2.map(|of| if of == owner { GONE } else { of });
                }
            }
        }
        self.check();
    }

    fn charged<R>(&self, owner: usize, f: impl FnOnce() -> R) -> (R, Option<usize>) {
        match self.owners.get(owner).and_then(Option::as_ref) {
            Some(memory) => {
                let _charging = memory.charge();
                (f(), Some(owner))
            }
            None => {
                let _nobody = charge_nobody();
                (f(), None)
            }
        }
    }

    fn fill(
        &mut self,
        place: usize,
        bytes: usize,
        owner: usize,
        f: impl Fn(usize) -> *mut libc::c_void,
    ) {
        self.free(place);
        let (block, owner) = self.charged(owner, || f(bytes));
        self.keep(place, block, bytes, owner);
    }

    fn resize(&mut self, place: usize, bytes: usize, owner: usize) {
        let Some((block, former_bytes, former)) = self.blocks.remove(&place) else {
            return;
        };
        // SAFETY: a living block of the C library.
        let room = unsafe { usable_bytes(block) } - former.map_or(0, |_| super::TRAILER_BYTES);
        let (moved, owner) = self.charged(owner, || raw_realloc(null_mut(), block, bytes));
        let owner = owner.filter(|_| bytes > room);
        if moved.is_null() {
            self.blocks.insert(place, (block, former_bytes, former));
            return;
        }
        for at in 0..former_bytes.min(bytes) {
            // SAFETY: inside the block.
            assert_eq!(unsafe { moved.cast::<u8>().add(at).read() }, place as u8);
        }
        self.keep(place, moved, bytes, owner.or(former));
    }

    fn keep(&mut self, place: usize, block: *mut libc::c_void, bytes: usize, owner: Option<usize>) {
        if block.is_null() {
            let refused = owner.and_then(|owner| self.owners[owner].as_ref());
            assert!(refused.is_some_and(Memory::was_refused));
            return;
        }
        // SAFETY: as many bytes were asked for.
        unsafe { block.cast::<u8>().write_bytes(place as u8, bytes) };
        self.blocks.insert(place, (block, bytes, owner));
    }

    fn free(&mut self, place: usize) {
        if let Some((block, ..)) = self.blocks.remove(&place) {
            raw_free(null_mut(), block);
        }
    }

    fn check(&self) {
        for (owner, memory) in self.owners.iter().enumerate() {
            let Some(memory) = memory else { continue };
            let own = self.blocks.values().filter(|block| block.2 == Some(owner));
            // SAFETY: living blocks of the C library.
            let bytes: usize = own.map(|block| unsafe { usable_bytes(block.0) }).sum();
            assert_eq!(memory.bytes(), bytes as u64);
            assert!(memory.peak() >= memory.bytes());
        }
    }
}

proptest! {
    #[test]
    fn what_is_charged_is_what_the_living_blocks_have(calls in proptest::collection::vec(call(), 1..200)) {
        let _alone = prepare();
        let before = LIVING.load(Ordering::Relaxed);
        let mut model = Model { owners: std::array::from_fn(|_| Some(Memory::new(LIMIT))), ..Model::default() };
        for call in &calls {
            model.apply(call);
        }
        for place in 0..12 {
            model.free(place);
        }
        model.check();
        drop(model);
        prop_assert_eq!(LIVING.load(Ordering::Relaxed), before);
    }
}

#[test]
fn sizes_that_no_block_has_get_none() {
    let _alone = prepare();
    let memory = Memory::new(u64::MAX);
    let _charging = memory.charge();
    let block = raw_malloc(null_mut(), 100);
    for bytes in [usize::MAX, isize::MAX as usize, usize::MAX - 15] {
        assert!(raw_malloc(null_mut(), bytes).is_null());
        assert!(raw_calloc(null_mut(), bytes, 2).is_null());
        assert!(raw_realloc(null_mut(), block, bytes).is_null());
    }
    raw_free(null_mut(), block);
    raw_free(null_mut(), null_mut());
    assert_eq!((memory.bytes(), memory.was_refused()), (0, false));
}

#[test]
fn blocks_from_before_are_freed_and_resized_as_before() {
    let _alone = prepare();
    let memory = Memory::new(u64::MAX);
    // SAFETY: a block as the C library makes them, freed once.
    unsafe {
        let block = libc::malloc(1000);
        assert!(Previous::get().owner(block).is_none());
        let moved = raw_realloc(null_mut(), block, 2000);
        assert!(Previous::get().owner(moved).is_none());
        let _charging = memory.charge();
        let charged = raw_realloc(null_mut(), moved, 3000);
        assert!(memory.bytes() >= 3000);
        raw_free(null_mut(), charged);
    }
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn another_threads_free_credits_the_owner() {
    let _alone = prepare();
    let memory = Memory::new(u64::MAX);
    let block = {
        let _charging = memory.charge();
        raw_malloc(null_mut(), 5000) as usize
    };
    assert!(memory.bytes() >= 5000);
    std::thread::spawn(move || raw_free(null_mut(), block as *mut libc::c_void))
        .join()
        .unwrap();
    assert_eq!(memory.bytes(), 0);
}
