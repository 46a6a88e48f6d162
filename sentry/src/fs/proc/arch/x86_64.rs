//! `/proc/cpuinfo` of x86 (arch/x86/kernel/cpu/proc.c), from CPUID.

use std::arch::x86_64::__cpuid_count;
use std::fmt::Write;

/// The machine's name, as uname(2) tells it.
pub const MACHINE: &str = "x86_64";

/// A register of a CPUID leaf.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}
use Register::{Eax, Ebx, Ecx, Edx};

/// The words of features that the kernel numbers, in its order: leaf, subleaf, register, and the names of their bits
/// ("" for those that have none).
type Word = (u32, u32, Register, &'static [&'static str]);

#[rustfmt::skip]
const WORDS: &[Word] = &[
    (1, 0, Edx, &[
        "fpu", "vme", "de", "pse", "tsc", "msr", "pae", "mce", "cx8", "apic", "", "sep", "mtrr", "pge", "mca", "cmov",
        "pat", "pse36", "pn", "clflush", "", "dts", "acpi", "mmx", "fxsr", "sse", "sse2", "ss", "ht", "tm", "ia64", "pbe",
    ]),
    (0x8000_0001, 0, Edx, &[
        "", "", "", "", "", "", "", "", "", "", "", "syscall", "", "", "", "",
        "", "", "", "mp", "nx", "", "mmxext", "", "", "fxsr_opt", "pdpe1gb", "rdtscp", "", "lm", "3dnowext", "3dnow",
    ]),
    (1, 0, Ecx, &[
        "pni", "pclmulqdq", "dtes64", "monitor", "ds_cpl", "vmx", "smx", "est", "tm2", "ssse3", "cid", "sdbg", "fma",
        "cx16", "xtpr", "pdcm", "", "pcid", "dca", "sse4_1", "sse4_2", "x2apic", "movbe", "popcnt",
        "tsc_deadline_timer", "aes", "xsave", "", "avx", "f16c", "rdrand", "hypervisor",
    ]),
    (0x8000_0001, 0, Ecx, &[
        "lahf_lm", "cmp_legacy", "svm", "extapic", "cr8_legacy", "abm", "sse4a", "misalignsse", "3dnowprefetch", "osvw",
        "ibs", "xop", "skinit", "wdt", "", "lwp", "fma4", "tce", "", "nodeid_msr", "", "tbm", "topoext", "perfctr_core",
        "perfctr_nb", "", "bpext", "ptsc", "perfctr_llc", "mwaitx", "", "",
    ]),
    (7, 0, Ebx, &[
        "fsgsbase", "tsc_adjust", "sgx", "bmi1", "hle", "avx2", "", "smep", "bmi2", "erms", "invpcid", "rtm", "cqm", "",
        "mpx", "rdt_a", "avx512f", "avx512dq", "rdseed", "adx", "smap", "avx512ifma", "", "clflushopt", "clwb", "intel_pt",
        "avx512pf", "avx512er", "avx512cd", "sha_ni", "avx512bw", "avx512vl",
    ]),
    (0xd, 1, Eax, &["xsaveopt", "xsavec", "xgetbv1", "xsaves"]),
    (7, 1, Eax, &[
        "", "", "", "", "avx_vnni", "avx512_bf16", "", "", "", "", "fzrm", "fsrs", "fsrc", "", "", "", "", "", "", "", "",
        "amx_fp16", "", "avx_ifma", "", "", "lam",
    ]),
    (0x8000_0008, 0, Ebx, &[
        "clzero", "irperf", "xsaveerptr", "", "rdpru", "", "", "", "", "wbnoinvd", "", "", "", "", "", "", "", "", "", "",
        "", "", "", "amd_ppin", "", "virt_ssbd", "", "cppc",
    ]),
    (7, 0, Ecx, &[
        "", "avx512vbmi", "umip", "pku", "ospke", "waitpkg", "avx512_vbmi2", "", "gfni", "vaes", "vpclmulqdq",
        "avx512_vnni", "avx512_bitalg", "tme", "avx512_vpopcntdq", "", "la57", "", "", "", "", "", "rdpid", "", "",
        "cldemote", "", "movdiri", "movdir64b", "enqcmd",
    ]),
    (7, 0, Edx, &[
        "", "", "avx512_4vnniw", "avx512_4fmaps", "fsrm", "", "", "", "avx512_vp2intersect", "", "md_clear", "", "", "",
        "serialize", "", "tsxldtrk", "", "pconfig", "arch_lbr", "ibt", "", "amx_bf16", "avx512_fp16", "amx_tile",
        "amx_int8", "", "", "flush_l1d", "arch_capabilities",
    ]),
];

/// Features that the kernel makes up from other leaves.
fn made_up() -> Vec<&'static str> {
    let mut names = Vec::new();
    // An invariant time stamp counter is constant too.
    if leaf(0x8000_0007, 0, Edx) & 1 << 8 != 0 {
        names.extend(["constant_tsc", "nonstop_tsc"]);
    }
    names.extend(["rep_good", "nopl", "xtopology", "cpuid"]);
    names
}

fn leaf(number: u32, subleaf: u32, register: Register) -> u32 {
    if number > __cpuid_count(number & 0x8000_0000, 0).eax {
        return 0;
    }
    let found = __cpuid_count(number, subleaf);
    match register {
        Eax => found.eax,
        Ebx => found.ebx,
        Ecx => found.ecx,
        Edx => found.edx,
    }
}

fn text_of(words: &[u32]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).take_while(|&b| b != 0).collect();
    String::from_utf8_lossy(&bytes).trim().to_string()
}

fn vendor() -> String {
    let found = __cpuid_count(0, 0);
    text_of(&[found.ebx, found.edx, found.ecx])
}

fn model_name() -> String {
    if __cpuid_count(0x8000_0000, 0).eax < 0x8000_0004 {
        return "unknown".to_string();
    }
    let words: Vec<u32> = (0x8000_0002..=0x8000_0004u32)
        .flat_map(|number| {
            let found = __cpuid_count(number, 0);
            [found.eax, found.ebx, found.ecx, found.edx]
        })
        .collect();
    text_of(&words)
}

/// Family, model and stepping.
fn signature() -> (u32, u32, u32) {
    let eax = leaf(1, 0, Eax);
    let mut family = eax >> 8 & 0xf;
    let mut model = eax >> 4 & 0xf;
    if family == 0xf {
        family += eax >> 20 & 0xff;
    }
    if family >= 6 {
        model |= (eax >> 16 & 0xf) << 4;
    }
    (family, model, eax & 0xf)
}

fn flags() -> String {
    let mut names: Vec<&str> = Vec::new();
    for (i, &(number, subleaf, register, bits)) in WORDS.iter().enumerate() {
        let word = leaf(number, subleaf, register);
        let set = bits.iter().enumerate().filter(|(bit, name)| word >> bit & 1 == 1 && !name.is_empty());
        names.extend(set.map(|(_, name)| *name));
        // Where the kernel's own word is.
        if i == 1 {
            names.extend(made_up());
        }
    }
    names.join(" ")
}

/// A cache, as `/sys/devices/system/cpu/cpuN/cache` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// Data, Instruction or Unified.
    pub kind: &'static str,
    /// Bytes of a line.
    pub line: u32,
    /// Lines that share a tag.
    pub partitions: u32,
    /// Ways of associativity.
    pub ways: u32,
    /// Number of sets.
    pub sets: u32,
}

impl Cache {
    /// Kilobytes.
    pub fn size(&self) -> u64 {
        u64::from(self.line) * u64::from(self.partitions) * u64::from(self.ways) * u64::from(self.sets) / 1024
    }
}

/// The caches, those of lower levels first.
pub fn caches() -> Vec<Cache> {
    // AMD has the same layout elsewhere.
    let number = if vendor() == "AuthenticAMD" { 0x8000_001d } else { 4 };
    let mut caches = Vec::new();
    for subleaf in 0..8 {
        let eax = leaf(number, subleaf, Eax);
        let kind = match eax & 0x1f {
            1 => "Data",
            2 => "Instruction",
            3 => "Unified",
            _ => break,
        };
        let (ebx, ecx) = (leaf(number, subleaf, Ebx), leaf(number, subleaf, Ecx));
        caches.push(Cache {
            level: eax >> 5 & 7,
            kind,
            line: (ebx & 0xfff) + 1,
            partitions: (ebx >> 12 & 0x3ff) + 1,
            ways: (ebx >> 22) + 1,
            sets: ecx.saturating_add(1),
        });
    }
    caches
}

/// Kilobytes of what /proc/cpuinfo calls the cache: the second level on AMD, the last level on others.
fn cache_size() -> u64 {
    let caches = caches();
    let chosen = match vendor().as_str() {
        "AuthenticAMD" => caches.iter().find(|c| c.level == 2),
        _ => caches.last(),
    };
    chosen.map_or(0, Cache::size)
}

/// The frequency in units of 1 kHz, as far as CPUID tells it.
fn frequency() -> u64 {
    let base = u64::from(leaf(0x16, 0, Eax) & 0xffff);
    if base != 0 {
        return base * 1000;
    }
    // Hypervisors tell the frequency of the counter here.
    if leaf(1, 0, Ecx) >> 31 == 1 && __cpuid_count(0x4000_0000, 0).eax >= 0x4000_0010 {
        let khz = __cpuid_count(0x4000_0010, 0).eax;
        if khz != 0 {
            return khz.into();
        }
    }
    let (denominator, numerator, crystal) = (leaf(0x15, 0, Eax), leaf(0x15, 0, Ebx), leaf(0x15, 0, Ecx));
    if denominator != 0 && crystal != 0 {
        return u64::from(crystal) * u64::from(numerator) / u64::from(denominator) / 1000;
    }
    2_000_000
}

/// `/proc/cpuinfo` for this many processors.
pub fn cpuinfo(cpus: u32) -> String {
    let (family, model, stepping) = signature();
    let (vendor, name, flags, cache, khz) = (vendor(), model_name(), flags(), cache_size(), frequency());
    let clflush = (leaf(1, 0, Ebx) >> 8 & 0xff) * 8;
    let bits = leaf(0x8000_0008, 0, Eax);
    let (physical, linear) = if bits == 0 { (36, 48) } else { (bits & 0xff, bits >> 8 & 0xff) };
    let level = __cpuid_count(0, 0).eax;
    let mut text = String::new();
    for cpu in 0..cpus {
        let _ = write!(
            text,
            "processor\t: {cpu}\n\
             vendor_id\t: {vendor}\n\
             cpu family\t: {family}\n\
             model\t\t: {model}\n\
             model name\t: {name}\n\
             stepping\t: {stepping}\n\
             microcode\t: 0xffffffff\n\
             cpu MHz\t\t: {}.{:03}\n\
             cache size\t: {cache} KB\n\
             physical id\t: 0\n\
             siblings\t: {cpus}\n\
             core id\t\t: {cpu}\n\
             cpu cores\t: {cpus}\n\
             apicid\t\t: {cpu}\n\
             initial apicid\t: {cpu}\n\
             fpu\t\t: yes\n\
             fpu_exception\t: yes\n\
             cpuid level\t: {level}\n\
             wp\t\t: yes\n\
             flags\t\t: {flags}\n\
             bugs\t\t:\n\
             bogomips\t: {}.{:02}\n\
             clflush size\t: {clflush}\n\
             cache_alignment\t: {clflush}\n\
             address sizes\t: {physical} bits physical, {linear} bits virtual\n\
             power management:\n\n",
            khz / 1000,
            khz % 1000,
            khz * 2 / 1000,
            khz * 2 / 10 % 100,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    fn fields(text: &str) -> BTreeMap<String, String> {
        let first = text.split("\n\n").next().unwrap_or_default();
        let pair = |line: &str| line.split_once(':').map(|(k, v)| (k.trim().into(), v.trim().into()));
        first.lines().filter_map(pair).collect()
    }

    /// The host's kernel tells the same of the same processor.
    #[test]
    fn the_host_says_the_same() {
        let host = fields(&std::fs::read_to_string("/proc/cpuinfo").unwrap());
        let own = fields(&super::cpuinfo(2));
        for key in
            ["vendor_id", "cpu family", "model", "model name", "stepping", "clflush size", "address sizes"]
        {
            assert_eq!(own.get(key), host.get(key), "{key}");
        }
        let set = |of: &BTreeMap<String, String>| -> Vec<String> {
            of["flags"].split(' ').map(str::to_string).collect()
        };
        let (own, host) = (set(&own), set(&host));
        // The kernel may have turned off some; what programs look for must be the same.
        for flag in [
            "fpu",
            "sse2",
            "ssse3",
            "sse4_2",
            "avx",
            "avx2",
            "aes",
            "pclmulqdq",
            "rdrand",
            "lm",
            "bmi2",
            "popcnt",
        ] {
            assert_eq!(own.iter().any(|f| f == flag), host.iter().any(|f| f == flag), "{flag}");
        }
        let missing: Vec<_> = host.iter().filter(|f| !own.contains(f)).collect();
        assert!(missing.len() * 5 < host.len(), "{missing:?}");
    }

    #[test]
    fn every_processor_has_a_section() {
        let text = super::cpuinfo(3);
        assert_eq!(text.matches("processor\t: ").count(), 3);
        assert!(text.ends_with("power management:\n\n"));
    }
}
