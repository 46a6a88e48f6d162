# Python's own test modules: prints the outcome of each case. Arguments: modules; MODULE/I/N is the part I (from 0) of N of its
# classes.
# root: full
# each: test_os test_subprocess test_signal test_socket test_mmap test_threading test_multiprocessing_spawn/0/4 test_multiprocessing_spawn/1/4 test_multiprocessing_spawn/2/4 test_multiprocessing_spawn/3/4 test_multiprocessing_fork test_epoll test_fcntl test_posix
cat > /tmp/runner.py <<'X'
import faulthandler, importlib, os, sys, unittest
from test import support
from test.support import os_helper
if __name__ == '__main__':
    out = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    # Nothing outside of the machine, nothing that takes very long.
    support.use_resources = ['subprocess', 'curses']
    support.verbose = False
    support.failfast = False
    class Result(unittest.TestResult):
        def tell(self, test, outcome):
            if not hasattr(test, 'id') or type(test).__name__ == '_ErrorHolder': out.write('%s %s\n' % (test, outcome))
            else: out.write('%s %s\n' % (test.id(), outcome))
        def startTest(self, test): super().startTest(test); faulthandler.cancel_dump_traceback_later(); faulthandler.dump_traceback_later(int(os.environ.get('CASE_LIMIT', '120')), exit=True); self.now = test.id(); sys.stderr.write('-> %s\n' % self.now); sys.stderr.flush()
        def addSuccess(self, test): self.tell(test, 'ok')
        def addError(self, test, err): super().addError(test, err); sys.stderr.write(self.errors[-1][1]); self.tell(test, 'error')
        def addFailure(self, test, err): super().addFailure(test, err); sys.stderr.write(self.failures[-1][1]); self.tell(test, 'failed')
        def addSkip(self, test, why): self.tell(test, 'skipped')
        def addExpectedFailure(self, test, err): self.tell(test, 'expected failure')
        def addUnexpectedSuccess(self, test): self.tell(test, 'unexpected success')
        def addSubTest(self, test, sub, err):
            super().addSubTest(test, sub, err)
            if err is not None: import traceback; sys.stderr.write(''.join(traceback.format_exception(*err))); self.tell(test, 'failed subtest')
    # regrtest runs each in a directory of its own.
    with os_helper.temp_cwd('tests', quiet=True):
        name, part, parts = (sys.argv[1].split('/') + ['0', '1'])[:3]
        module = importlib.import_module('test.' + name)
        tests = unittest.TestSuite(list(unittest.defaultTestLoader.loadTestsFromModule(module))[int(part)::int(parts)])
        tests.run(Result())
        out.write('end of %s\n' % sys.argv[1])
X
# On tmpfs: an overlay's inode numbers differ between a directory's entries and stat, and one test minds.
cd /tmp
for m in "$@"; do timeout -k 5 "${LIMIT:-600}" python3 -u /tmp/runner.py $m < /dev/null | sort | uniq; done
