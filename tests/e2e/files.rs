// SPDX-License-Identifier: Apache-2.0
//! File systems behave as on ext4, on the private layer and on a writable volume.

use harness::{Case, Need};
use tests::Bench;

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("files::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(private_layer_behaves, Need::Program("python3")),
    case!(volume_behaves, Need::Program("python3")),
    case!(running_program_is_safe, Need::Program("python3")),
];

type Result = std::result::Result<(), String>;

/// Each check prints its name when it holds; it runs in the directory given as its argument.
const CHECKS: &str = r#"
import fcntl, mmap, os, sys
os.chdir(sys.argv[1])

def unlinked():
    fd = os.open('u', os.O_RDWR | os.O_CREAT); os.unlink('u'); os.write(fd, b'abc')
    return os.pread(fd, 3, 0) == b'abc' and os.fstat(fd).st_nlink == 0
def rename():
    open('r1', 'w').write('1'); open('r2', 'w').write('2'); os.rename('r1', 'r2')
    os.mkdir('d1'); open('d1/f', 'w').write('3'); os.rename('d1', 'd2')
    return open('r2').read() == '1' and not os.path.exists('r1') and open('d2/f').read() == '3'
def mmap_shared():
    with open('m', 'w+b') as f:
        f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[4096:4099] = b'xyz'; m.flush()
        return os.pread(f.fileno(), 3, 4096) == b'xyz'
def mmap_private():
    with open('p', 'w+b') as f:
        f.write(b'a' * 4096); f.flush()
        m = mmap.mmap(f.fileno(), 4096, flags=mmap.MAP_PRIVATE); m[0:1] = b'b'
        return os.pread(f.fileno(), 1, 0) == b'a'
def flock():
    a = os.open('l', os.O_RDWR | os.O_CREAT); b = os.open('l', os.O_RDWR)
    fcntl.flock(a, fcntl.LOCK_EX)
    try: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB); return False
    except BlockingIOError: pass
    fcntl.flock(a, fcntl.LOCK_UN); fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB); return True
def tmpfile():
    fd = os.open('.', os.O_RDWR | os.O_TMPFILE, 0o600); os.write(fd, b'tmp')
    os.link('/proc/self/fd/%d' % fd, 't', src_dir_fd=fd, follow_symlinks=True)
    return open('t').read() == 'tmp'
def sparse():
    with open('s', 'wb') as f:
        f.seek(64 << 20); f.write(b'end')
    s = os.stat('s'); return s.st_size == (64 << 20) + 3 and s.st_blocks * 512 < 1 << 20
def hardlink():
    open('h1', 'w').write('one'); os.link('h1', 'h2'); open('h2', 'a').write('two')
    a, b = os.stat('h1'), os.stat('h2')
    return open('h1').read() == 'onetwo' and (a.st_ino, a.st_dev, a.st_nlink) == (b.st_ino, b.st_dev, 2)
def symlink():
    os.symlink('h1', 'y'); return os.readlink('y') == 'h1' and open('y').read() == 'onetwo'
def append():
    a = os.open('a', os.O_WRONLY | os.O_CREAT | os.O_APPEND); b = os.open('a', os.O_WRONLY | os.O_APPEND)
    os.write(a, b'1'); os.write(b, b'2'); os.write(a, b'3'); return open('a').read() == '123'
def direct():
    # nobody has written to it, so it is the page of zeros, many times
    m = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    fd = os.open('z', os.O_RDWR | os.O_CREAT | os.O_DIRECT); written = os.write(fd, m)
    return written == 1 << 16 and os.preadv(fd, [m], 0) == 1 << 16 and bytes(m) == bytes(1 << 16)

for check in (unlinked, rename, mmap_shared, mmap_private, flock, tmpfile, sparse, hardlink, symlink, append, direct):
    try: held = check()
    except OSError as error: held = error
    print(check.__name__, 'ok' if held is True else held)
"#;

const HELD: &str = "unlinked ok\nrename ok\nmmap_shared ok\nmmap_private ok\nflock ok\ntmpfile ok\nsparse ok\n\
                    hardlink ok\nsymlink ok\nappend ok\ndirect ok";

fn private_layer_behaves() -> Result {
    let bench = Bench::new();
    bench.write("checks.py", CHECKS);
    bench.shell("mkdir -p /scratch && /usr/bin/python3 checks.py /scratch").wait().prints(HELD);
    bench.shell("mkdir inner && /usr/bin/python3 checks.py inner").wait().prints(HELD);
    Ok(())
}

fn volume_behaves() -> Result {
    let (bench, data) = (Bench::new(), Bench::new());
    bench.write("checks.py", CHECKS);
    let volume = format!("{}:/data", data.path().display());
    // The FUSE protocol has a request for O_TMPFILE, the file server's library has not: programs must fall back, as on NFS.
    let held = HELD.replace("tmpfile ok", "tmpfile [Errno 95] Operation not supported: '.'");
    bench.run(["-v", &volume, "--", "/usr/bin/python3", "checks.py", "/data"]).wait().prints(&held);
    Ok(())
}

/// Does whatever would change a program while it provably runs: it is cat(1), and answers before and after. Once at once,
/// and once when the guest's kernel asks the host anew about all it knows of a volume, which it does after a second.
const ATTACKS: &str = r#"
import errno, os, shutil, subprocess, sys, time
os.chdir(sys.argv[1])
shutil.copy('/usr/bin/cat', 'program')
size = os.stat('program').st_size
cat = subprocess.Popen(['./program'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

def runs():
    cat.stdin.write(b'?'); return cat.stdout.read(1) == b'?'
def attack(name, call):
    try: call(); held = 'succeeds'
    except OSError as error: held = errno.errorcode[error.errno]
    print(name, held, os.stat('program').st_size - size, runs())

for pause in (0, 1.5):
    time.sleep(pause)
    for name in ('O_WRONLY', 'O_RDWR'):
        for more in (0, os.O_TRUNC):
            attack(name, lambda: os.open('program', getattr(os, name) | more))
    attack('O_RDONLY|O_TRUNC', lambda: os.open('program', os.O_RDONLY | os.O_TRUNC))
    attack('truncate', lambda: os.truncate('program', 0))
cat.stdin.close()
print('ended', cat.wait(), os.path.getsize(os.open('program', os.O_RDONLY | os.O_TRUNC)))
"#;

/// Nothing may write to a program that runs (ETXTBSY), and what is refused has changed nothing.
fn running_program_is_safe() -> Result {
    let (bench, data) = (Bench::new(), Bench::new());
    bench.write("attacks.py", ATTACKS);
    let refused = |name: &&str| format!("{name} ETXTBSY 0 True\n");
    let once: String =
        ["O_WRONLY", "O_WRONLY", "O_RDWR", "O_RDWR", "O_RDONLY|O_TRUNC", "truncate"].iter().map(refused).collect();
    let expected = format!("{once}{once}ended 0 0");

    bench.shell("mkdir -p /scratch && /usr/bin/python3 attacks.py /scratch").wait().prints(&expected);
    let volume = format!("{}:/data", data.path().display());
    bench.run(["-v", &volume, "--", "/usr/bin/python3", "attacks.py", "/data"]).wait().prints(&expected);
    assert_eq!(data.path().join("program").metadata().map_err(|error| error.to_string())?.len(), 0);
    Ok(())
}
