//! Which instructions for matrix products in bf16 the processor has, and how fast it can be.
//!
//! Intel's AMX (Sapphire Rapids and newer) multiplies tiles of 16 × 32 by 32 × 16 elements; AVX512-BF16 (Zen 4 and
//! newer, Cooper Lake, and all processors with AMX) multiplies vectors. A program has to ask Linux for AMX's
//! registers before it uses them.

use std::fmt;
use std::sync::OnceLock;

use mpnet_plan::Precision;

/// Instructions that multiply matrices in bf16, the faster ones first; processors of other kinds have none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bf16Instructions {
    /// `tdpbf16ps` on tiles; what surrounds the products is AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// `vdpbf16ps` on vectors of 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl fmt::Display for Bf16Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx_bf16",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512_bf16",
        })
    }
}

/// Instructions for products in f32, the faster ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum F32Instructions {
    /// Vectors of 512 bits.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Vectors of 256 bits, with fused multiplication and addition.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of a loop.
    Plain,
}

impl F32Instructions {
    /// Those of this processor.
    pub fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Plain
    }
}

/// What a processor and its system say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capability {
    /// AVX-512 with F, BW, VL, DQ and BF16.
    pub avx512_bf16: bool,
    /// AMX with tiles and BF16.
    pub amx_bf16: bool,
    /// Whether the system lets this process use AMX's registers.
    pub amx_permitted: bool,
}

/// Why matrix products are not computed in bf16 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this processor has no instructions for matrix products in bf16, neither amx_bf16 nor avx512_bf16: use \
     --precision fp32"
)]
pub struct NoBf16;

impl Capability {
    /// That of this machine; found once.
    pub fn here() -> Self {
        static FOUND: OnceLock<Capability> = OnceLock::new();
        *FOUND.get_or_init(detect)
    }

    /// The instructions to use.
    ///
    /// # Errors
    /// There are none.
    pub fn bf16(self) -> Result<Bf16Instructions, NoBf16> {
        match (self.avx512_bf16, self.amx_bf16 && self.amx_permitted) {
            #[cfg(target_arch = "x86_64")]
            (true, true) => Ok(Bf16Instructions::Amx),
            #[cfg(target_arch = "x86_64")]
            (true, false) => Ok(Bf16Instructions::Avx512),
            _ => Err(NoBf16),
        }
    }

    /// Arithmetic operations that a core can do in a cycle, where that is known: of processors with AMX, which have
    /// one unit for 16 × 16 × 2 products and sums of bf16 and two of 16 in f32 each.
    fn per_cycle(self, precision: Precision) -> Option<f64> {
        match precision {
            Precision::F32 if self.amx_bf16 => Some(64.0),
            Precision::BF16 if self.amx_bf16 && self.amx_permitted => Some(1024.0),
            Precision::F32 | Precision::BF16 | Precision::F16 => None,
        }
    }

    /// Arithmetic operations a second that so many cores can do at their base frequency, where that is known.
    pub fn peak(self, precision: Precision, cores: usize) -> Option<f64> {
        let per_cycle = self.per_cycle(precision)?;
        Some(per_cycle * base_frequency()? * cores as f64)
    }
}

/// What `mpnet doctor` says.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bf16() {
            Ok(instructions) => write!(f, "multiplies matrices in bf16 by {instructions}")?,
            Err(error) => write!(f, "{error}")?,
        }
        if self.amx_bf16 && !self.amx_permitted {
            write!(
                f,
                "; it has amx_bf16, which the system keeps from this process"
            )?;
        }
        Ok(())
    }
}

/// What the processor says of itself.
#[cfg(target_arch = "x86_64")]
fn cpuid(leaf: u32, part: u32) -> std::arch::x86_64::CpuidResult {
    // SAFETY: every processor of this architecture has the instruction. (Rust itself says so since 1.94.)
    #[allow(unused_unsafe)]
    unsafe {
        std::arch::x86_64::__cpuid_count(leaf, part)
    }
}

/// Cycles a second of the processor's base frequency, at which its time stamp counter ticks; measured once.
#[cfg(target_arch = "x86_64")]
fn base_frequency() -> Option<f64> {
    use std::arch::x86_64::_rdtsc;
    use std::time::{Duration, Instant};
    static FOUND: OnceLock<Option<f64>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        const POWER: u32 = 0x8000_0007;
        const INVARIANT: u32 = 1 << 8;
        if cpuid(0x8000_0000, 0).eax < POWER || cpuid(POWER, 0).edx & INVARIANT == 0 {
            return None;
        }
        // SAFETY: every processor of this architecture has the counter.
        let ticks = || unsafe { _rdtsc() };
        let (started, first) = (Instant::now(), ticks());
        std::thread::sleep(Duration::from_millis(5));
        let (ticks, passed) = (ticks().wrapping_sub(first), started.elapsed());
        Some(ticks as f64 / passed.as_secs_f64())
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn base_frequency() -> Option<f64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Capability {
    let avx512_bf16 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bf16");
    let amx_bf16 = avx512_bf16 && has_amx();
    Capability {
        avx512_bf16,
        amx_bf16,
        amx_permitted: amx_bf16 && permit_amx(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Capability {
    Capability::default()
}

/// Whether the processor says that it has AMX with tiles and BF16, and the system saves their registers.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    // The tiles' configuration and data among the registers that the system has switched on.
    const STATES: u32 = 1 << 17 | 1 << 18;
    let features = cpuid(7, 0).edx;
    // Processors with AVX-512 have the leaves 7 and 13.
    let states = cpuid(13, 0).eax;
    features & BF16_AND_TILES == BF16_AND_TILES && states & STATES == STATES
}

/// Asks Linux for the tiles' registers, for all threads of this process.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permit_amx() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let answer: i64;
    // SAFETY: the call of arch_prctl changes which registers the process may use, and no memory of it.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

/// Other systems have other ways, which nobody has tried.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn permit_amx() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_fastest_permitted_instructions_are_chosen_and_none_are_refused() {
        let chosen = |avx512_bf16, amx_bf16, amx_permitted| {
            let capability = Capability {
                avx512_bf16,
                amx_bf16,
                amx_permitted,
            };
            capability.bf16()
        };
        assert_eq!(chosen(true, true, true), Ok(Bf16Instructions::Amx));
        assert_eq!(chosen(true, true, false), Ok(Bf16Instructions::Avx512));
        assert_eq!(chosen(true, false, false), Ok(Bf16Instructions::Avx512));
        assert_eq!(chosen(false, false, false), Err(NoBf16));
        let said = NoBf16.to_string();
        assert!(said.contains("amx_bf16") && said.contains("fp32"), "{said}");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_a_processor_can_do_is_said_and_counted() {
        let kept = Capability {
            avx512_bf16: true,
            amx_bf16: true,
            amx_permitted: false,
        };
        let said = kept.to_string();
        assert!(said.contains("by avx512_bf16"), "{said}");
        assert!(said.contains("keeps from this process"), "{said}");
        assert_eq!(kept.peak(Precision::BF16, 2), None);
        let amx = Capability {
            amx_permitted: true,
            ..kept
        };
        let peak = |precision| amx.peak(precision, 2);
        if let (Some(f32), Some(bf16)) = (peak(Precision::F32), peak(Precision::BF16)) {
            assert_eq!(bf16 / f32, 16.0);
            // Two cores of 0.5 to 8 GHz.
            assert!((64e9..1024e9).contains(&f32), "{f32}");
        }
        assert_eq!(Capability::default().peak(Precision::F32, 2), None);
    }

    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    #[test]
    fn what_is_found_is_what_the_system_lists() {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let listed = |flag: &str| info.split_whitespace().any(|word| word == flag);
        let found = Capability::here();
        assert_eq!(found.avx512_bf16, listed("avx512_bf16"));
        assert_eq!(found.amx_bf16, listed("amx_bf16") && listed("amx_tile"));
    }
}
