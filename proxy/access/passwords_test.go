package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hash is the cheapest that there is of a password.
func hash(password string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		panic(err)
	}
	return string(h)
}

func open(t *testing.T, text string) *Passwords {
	t.Helper()
	p, err := OpenPasswords(write(t, filepath.Join(t.TempDir(), "htpasswd"), text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// write writes a file in one step, as who replaces passwords should.
func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	return path
}

func (p *Passwords) expect(t *testing.T, user, password string, want bool) {
	t.Helper()
	if right, err := p.Check(t.Context(), "", user, password); right != want || err != nil {
		t.Errorf("%s: %v, %v; want %v", user, right, err, want)
	}
}

// counted counts the checks that cost something, and what they were of.
func (p *Passwords) counted() *atomic.Int64 {
	n := new(atomic.Int64)
	compare := p.compare
	p.compare = func(hash, password []byte) error {
		n.Add(1)
		return compare(hash, password)
	}
	return n
}

func TestPairsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, "alice:"+hash("sesame")+"\nbob:"+hash("mice")+"\n")
		checks := p.counted()
		expect := func(user, password string, right bool, cost int64) {
			t.Helper()
			before := checks.Load()
			p.expect(t, user, password, right)
			if got := checks.Load() - before; got != cost {
				t.Errorf("%s cost %d checks, want %d", user, got, cost)
			}
		}
		expect("alice", "sesame", true, 1)
		expect("alice", "sesame", true, 0)
		expect("alice", "mice", false, 1)
		expect("alice", "mice", false, 0)
		expect("bob", "sesame", false, 1)
		expect("bob", "mice", true, 1)
		expect("carol", "mice", false, 1) // who is not known costs as much
		expect("carol", "mice", false, 0)
		<-time.After(wrongFor)
		expect("carol", "mice", false, 1)
		expect("alice", "mice", false, 1)
		expect("alice", "sesame", true, 0)
		<-time.After(rightFor)
		expect("alice", "sesame", true, 1)
		for range 3 { // who keeps coming is not checked again
			<-time.After(rightFor / 2)
			expect("alice", "sesame", true, 0)
		}
	})
}

func TestUnknownUsersAreNobody(t *testing.T) {
	p := open(t, "alice:"+hash("sesame")+"\nbob:"+hash("sesame")+"\n")
	for i := range 20 {
		p.expect(t, fmt.Sprint("user", i), "sesame", false)
	}
}

func TestLongPasswords(t *testing.T) {
	long := strings.Repeat("long", 18) // what bcrypt looks at
	p := open(t, "alice:"+hash(long)+"\n")
	p.expect(t, "alice", long, true)
	p.expect(t, "alice", long+" and what the tools leave out as well", true)
	p.expect(t, "alice", long[:71], false)
	p.expect(t, "alice", strings.Repeat("x", 60<<10), false)
	p.expect(t, "alice", "", false)
}

func TestPasswordsAreReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := write(t, filepath.Join(t.TempDir(), "htpasswd"), "alice:"+hash("sesame")+"\n")
		var told []string
		p, err := OpenPasswords(path, func(err error) { told = append(told, fmt.Sprint(err)) })
		if err != nil {
			t.Fatal(err)
		}
		p.expect(t, "alice", "sesame", true)
		expect := func(password string, right bool, news string) {
			t.Helper()
			told = nil
			p.expect(t, "alice", password, right)
			<-time.After(lookEvery)
			for range 3 {
				p.expect(t, "alice", password, right)
			}
			if got := strings.Join(told, ", "); !strings.HasPrefix(got, news) || (got == "") != (news == "") || len(told) > 1 {
				t.Errorf("told %q, want %q", got, news)
			}
		}
		expect("sesame", true, "")
		write(t, path, "alice:"+hash("sesame")+"\nbob\n")
		expect("sesame", true, path+": line 2 is not")
		write(t, path, "# nobody\n")
		expect("sesame", true, path+": it has no user")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		expect("sesame", true, "stat "+path)
		write(t, path, "alice:"+hash("mice")+"\n")
		<-time.After(lookEvery)
		told = nil
		p.expect(t, "alice", "mice", true)
		p.expect(t, "alice", "sesame", false) // though it was remembered
		if len(told) != 1 || told[0] != "<nil>" {
			t.Errorf("told %q", told)
		}
	})
}

func TestChecksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, "alice:"+hash("sesame")+"\n")
		var now, most atomic.Int64
		compare, release := p.compare, make(chan struct{})
		p.compare = func(hash, password []byte) error {
			for n := now.Add(1); n > most.Load(); {
				most.Store(n)
			}
			<-release
			now.Add(-1)
			return compare(hash, password)
		}
		processors := max(runtime.GOMAXPROCS(0)/2, 1)
		var done sync.WaitGroup
		var busy atomic.Int64
		for i := range processors * (2 + maxWaiting) { // one too many, for each
			done.Go(func() {
				if _, err := p.Check(t.Context(), fmt.Sprint(i), "alice", fmt.Sprint(i)); errors.Is(err, ErrBusy) {
					busy.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if got := busy.Load(); got != int64(processors) {
			t.Errorf("%d were turned away", got)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		cancel(gone)
		if _, err := p.Check(ctx, "", "alice", "x"); !errors.Is(err, ErrBusy) {
			t.Errorf("beyond the queue: %v", err)
		}
		<-time.After(patience)
		synctest.Wait()
		if got := busy.Load(); got != int64(processors*(1+maxWaiting)) {
			t.Errorf("%d have not waited in vain", got)
		}
		if _, err := p.Check(ctx, "", "alice", "x"); !errors.Is(err, gone) {
			t.Errorf("a client that is gone: %v", err)
		}
		close(release)
		done.Wait()
		if most.Load() != int64(processors) {
			t.Errorf("%d at once", most.Load())
		}
	})
}

// Who comes with one wrong password after the other, from an address, waits for those; others come in meanwhile.
func TestAnAddressKeepsNobodyElseOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Policy{Htpasswd: open(t, "alice:"+hash("sesame")+"\n")}
		p.Htpasswd.compare = func(_, password []byte) error {
			<-time.After(50 * time.Millisecond) // of a processor
			if string(password) != "sesame" {
				return errors.New("wrong")
			}
			return nil
		}
		stop, end := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 2 * (maxWaiting + 1) * runtime.GOMAXPROCS(0) {
			all.Go(func() {
				for n := 0; stop.Err() == nil; n++ {
					_, _, err := p.Enter(request("192.0.2.1:1", basic("alice", fmt.Sprint(i, n))), false)
					if errors.Is(err, ErrBusy) {
						<-time.After(10 * time.Millisecond)
					}
				}
			})
		}
		<-time.After(time.Second)
		user, _, err := p.Enter(request("192.0.2.2:1", basic("alice", "sesame")), false)
		if user != "alice" || err != nil {
			t.Errorf("%q, %v", user, err)
		}
		end()
		all.Wait()
	})
}

func TestPairsAreBounded(t *testing.T) {
	p := open(t, "alice:"+hash("sesame")+"\n")
	p.expect(t, "alice", "sesame", true)
	p.compare = func(_, _ []byte) error { return errors.New("wrong") }
	for i := range maxPairs + 10 {
		p.expect(t, fmt.Sprint(i), "x", false)
	}
	p.expect(t, "alice", "sesame", true)
	if len(p.wrong) > maxPairs || len(p.right) != 1 {
		t.Errorf("%d wrong, %d right", len(p.wrong), len(p.right))
	}
}

func TestParsePasswords(t *testing.T) {
	good := hash("x")
	for _, tt := range []struct{ name, text, err string }{
		{"one", "alice:" + good, ""},
		{"as Apache writes it", "alice:$2y" + good[3:] + "\r\n", ""},
		{"several", "# people\nalice:" + good + "\n\n  bob:" + good + "\n", ""},
		{"none", "", "it has no user"},
		{"none yet", "# people\n\n", "it has no user"},
		{"no colon", "alice\n", "line 1 is not a name, a colon and a bcrypt hash"},
		{"no name", "\n:" + good, "line 2 is not a name"},
		{"MD5", "alice:$apr1$abc$def", `line 1: the password of "alice" is not hashed by bcrypt: make it anew by htpasswd -B`},
		{"plain", "a:" + good + "\nbob:secret\n", `line 2: the password of "bob" is not hashed by bcrypt`},
		{"cut off", "alice:" + good[:59], "is not hashed by bcrypt"},
		{"twice", "alice:" + good + "\nalice:" + good, `line 2: "alice" is there twice`},
		{"for ever", "alice:$2a$31" + good[6:], "has a cost of 31"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parse([]byte(tt.text))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("%v, want %q", err, tt.err)
			}
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), good[:20])) {
				t.Errorf("tells the password: %v", err)
			}
		})
	}
	if _, err := OpenPasswords(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	large := write(t, filepath.Join(t.TempDir(), "large"), strings.Repeat("#\n", maxFile))
	if _, err := OpenPasswords(large, nil); err == nil {
		t.Error("a file without end was read")
	}
}

func FuzzParsePasswords(f *testing.F) {
	f.Add([]byte("alice:" + hash("x") + "\n# c\n:\n"))
	f.Add([]byte("a:$2y$16$\nb"))
	f.Fuzz(func(t *testing.T, text []byte) {
		users, err := parse(text)
		if err != nil {
			return
		}
		for name, hash := range users {
			if cost, err := bcrypt.Cost(hash); name == "" || err != nil || cost > maxCost || !bytes.Contains(text, hash) {
				t.Errorf("%q: %q, %v", name, hash, err)
			}
		}
	})
}

// A fleet that comes with one pair at once, when it has just been forgotten, costs one check, and none of it is sent away.
func TestManyComeWithOnePair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := open(t, "alice:"+hash("sesame")+"\n")
		checks, free := p.counted(), make(chan struct{})
		compare := p.compare
		p.compare = func(hash, password []byte) error {
			<-free
			return compare(hash, password)
		}
		var all sync.WaitGroup
		for range 2 * (maxWaiting + 1) * runtime.GOMAXPROCS(0) {
			all.Go(func() { p.expect(t, "alice", "sesame", true) })
		}
		synctest.Wait()
		close(free)
		all.Wait()
		if n := checks.Load(); n != 1 {
			t.Errorf("%d checks", n)
		}
	})
}
