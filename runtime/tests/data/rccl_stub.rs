//! RCCL and HIP on files, for a machine without AMD's GPUs: `runtime/tests/rccl.rs` compiles it.
//!
//! Memory of the "GPU" is the host's, and ranks give each other their values in files of the folder `STUB_FOLDER`.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};

static RANK: AtomicUsize = AtomicUsize::new(0);
static WORLD: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// How often the communicator is still busy when it is asked.
static BUSY: AtomicI32 = AtomicI32::new(0);
/// How often the stream is still busy when it is asked.
static UNDONE: AtomicI32 = AtomicI32::new(0);

const IN_PROGRESS: c_int = 7;
const NOT_READY: c_int = 600;

#[repr(C)]
pub struct UniqueId([u8; 128]);

#[repr(C)]
pub struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

fn file(call: usize, rank: usize) -> PathBuf {
    PathBuf::from(std::env::var_os("STUB_FOLDER").unwrap()).join(format!("{call}.{rank}"))
}

/// What every rank has given to this call.
fn exchange(own: &[u8]) -> Vec<Vec<u8>> {
    let call = CALLS.fetch_add(1, SeqCst);
    let target = file(call, RANK.load(SeqCst));
    let aside = target.with_extension(format!("{}.new", RANK.load(SeqCst)));
    std::fs::write(&aside, own).unwrap();
    std::fs::rename(&aside, &target).unwrap();
    let wait = |rank| loop {
        match std::fs::read(file(call, rank)) {
            Ok(bytes) => break bytes,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    };
    (0..WORLD.load(SeqCst)).map(wait).collect()
}

fn width(kind: c_int) -> usize {
    match kind {
        1 => 1,
        2 | 3 | 7 => 4,
        4 | 5 | 8 => 8,
        _ => panic!("the type {kind} is not expected"),
    }
}

macro_rules! together {
    ($type:ty, $all:expr, $max:expr) => {{
        let size = std::mem::size_of::<$type>();
        let mut result = Vec::new();
        for at in (0..$all[0].len()).step_by(size) {
            let value = |bytes: &Vec<u8>| {
                <$type>::from_ne_bytes(bytes[at..at + size].try_into().unwrap())
            };
            let mut values = $all.iter().map(value);
            let first = values.next().unwrap();
            let add = |a: $type, b: $type| if $max { if b > a { b } else { a } } else { a + b };
            result.extend(values.fold(first, add).to_ne_bytes());
        }
        result
    }};
}

fn reduce(all: &[Vec<u8>], kind: c_int, operation: c_int) -> Vec<u8> {
    let max = match operation {
        0 => false,
        2 => true,
        _ => panic!("the operation {operation} is not expected"),
    };
    match kind {
        1 => together!(u8, all, max),
        2 => together!(i32, all, max),
        3 => together!(u32, all, max),
        4 => together!(i64, all, max),
        5 => together!(u64, all, max),
        7 => together!(f32, all, max),
        8 => together!(f64, all, max),
        _ => unreachable!(),
    }
}

unsafe fn read(source: *const c_void, count: usize, kind: c_int) -> Vec<u8> {
    unsafe { std::slice::from_raw_parts(source.cast::<u8>(), count * width(kind)) }.to_vec()
}

unsafe fn write(target: *mut c_void, bytes: &[u8]) -> c_int {
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.cast(), bytes.len()) };
    BUSY.store(2, SeqCst);
    UNDONE.store(3, SeqCst);
    IN_PROGRESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(version: *mut c_int) -> c_int {
    unsafe { *version = 22_105 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(id: *mut UniqueId) -> c_int {
    unsafe { (*id).0 = [17; 128] };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRankConfig(
    communicator: *mut *mut c_void,
    world: c_int,
    id: UniqueId,
    rank: c_int,
    config: *mut Config,
) -> c_int {
    let config = unsafe { &*config };
    if id.0 != [17; 128] || config.magic != 0xcafe_beef || config.size != 24 || config.blocking != 0 {
        return 4;
    }
    WORLD.store(world as usize, SeqCst);
    RANK.store(rank as usize, SeqCst);
    exchange(&[]);
    BUSY.store(2, SeqCst);
    unsafe { *communicator = 1 as *mut c_void };
    IN_PROGRESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(_: *mut c_void, state: *mut c_int) -> c_int {
    let busy = BUSY.fetch_sub(1, SeqCst) > 0;
    unsafe { *state = if busy { IN_PROGRESS } else { 0 } };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommAbort(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommFinalize(_: *mut c_void) -> c_int {
    BUSY.store(1, SeqCst);
    IN_PROGRESS
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommDestroy(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(_: c_int) -> *const c_char {
    c"an error of the stub".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetLastError(_: *mut c_void) -> *const c_char {
    c"".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllReduce(
    source: *const c_void,
    target: *mut c_void,
    count: usize,
    kind: c_int,
    operation: c_int,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let all = exchange(&unsafe { read(source, count, kind) });
    unsafe { write(target, &reduce(&all, kind, operation)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclReduceScatter(
    source: *const c_void,
    target: *mut c_void,
    count: usize,
    kind: c_int,
    operation: c_int,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let (rank, world) = (RANK.load(SeqCst), WORLD.load(SeqCst));
    let all = exchange(&unsafe { read(source, count * world, kind) });
    let sum = reduce(&all, kind, operation);
    let part = sum.chunks_exact(count * width(kind)).nth(rank).unwrap();
    unsafe { write(target, part) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllGather(
    source: *const c_void,
    target: *mut c_void,
    count: usize,
    kind: c_int,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let all = exchange(&unsafe { read(source, count, kind) });
    unsafe { write(target, &all.concat()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclBroadcast(
    source: *const c_void,
    target: *mut c_void,
    count: usize,
    kind: c_int,
    root: c_int,
    _: *mut c_void,
    _: *mut c_void,
) -> c_int {
    let all = exchange(&unsafe { read(source, count, kind) });
    unsafe { write(target, &all[root as usize]) }
}

#[unsafe(no_mangle)]
pub extern "C" fn hipSetDevice(device: c_int) -> c_int {
    // `hipErrorInvalidDevice`
    if device == 0 { 0 } else { 101 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMalloc(memory: *mut *mut c_void, bytes: usize) -> c_int {
    let block = vec![0_u8; bytes].leak();
    unsafe { *memory = block.as_mut_ptr().cast() };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn hipFree(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipMemcpy(
    target: *mut c_void,
    source: *const c_void,
    bytes: usize,
    direction: c_int,
) -> c_int {
    assert!(direction == 1 || direction == 2);
    unsafe { std::ptr::copy_nonoverlapping(source.cast::<u8>(), target.cast(), bytes) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn hipStreamCreateWithFlags(stream: *mut *mut c_void, _: c_uint) -> c_int {
    unsafe { *stream = 1 as *mut c_void };
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn hipStreamSynchronize(_: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn hipStreamQuery(_: *mut c_void) -> c_int {
    if UNDONE.fetch_sub(1, SeqCst) > 0 { NOT_READY } else { 0 }
}

#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorString(_: c_int) -> *const c_char {
    c"an error of the stub's GPU".as_ptr()
}
