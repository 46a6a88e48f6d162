# Git: init, commits, branches, clone, gc.
# root: full
set -e
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
cd /tmp && git init -q -b main repo && cd repo
for i in $(seq 1 200); do mkdir -p d$((i % 10)); echo "file $i" > d$((i % 10))/f$i; done
git add . && git commit -qm first && git rev-parse HEAD
for i in 1 2 3 4 5; do echo change $i >> d1/f1; git commit -qam "change $i"; done
git log --oneline | wc -l
git checkout -q -b side HEAD~3 && echo side > s && git add s && git commit -qm side && git checkout -q main && git merge -q --no-edit side && git rev-parse HEAD
git diff --stat HEAD~2 | tail -1
cd .. && git clone -q repo copy && cd copy && git rev-parse HEAD && git status --short | wc -l
git gc -q && git fsck 2>&1 | grep -v '^Checking' | wc -l
git archive HEAD | tar t | wc -l
git grep -c 'file 1$' | head -3
git bundle create -q ../b HEAD main && git clone -q ../b ../frombundle && git -C ../frombundle log --oneline | wc -l
cd ../repo && git daemon --base-path=/tmp --export-all --listen=127.0.0.1 --port=9418 --reuseaddr > /dev/null 2>&1 & p=$!
for i in $(seq 50); do git ls-remote git://127.0.0.1/repo > /dev/null 2>&1 && break; sleep 0.1; done
git clone -q git://127.0.0.1/repo /tmp/overnet && git -C /tmp/overnet rev-parse HEAD; kill $p
