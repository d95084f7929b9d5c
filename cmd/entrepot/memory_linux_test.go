package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestPromiseFlatMemory runs the real program, for only a process of its own has memory of its own to look at.
func TestPromiseFlatMemory(t *testing.T) {
	small, large := newStream(1, 1<<20), newStream(2, 256<<20)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := small
		if strings.HasSuffix(r.URL.Path, large.digest) {
			s = large
		}
		w.Header().Set("Content-Length", fmt.Sprint(s.size))
		if r.Method == http.MethodGet {
			_, _ = io.Copy(w, s.reader())
		}
	}))
	defer upstream.Close()
	pid, url := startProcess(t, upstream.URL)
	pull := func(s stream, clients int) {
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				res, err := http.Get(url + "/v2/library/a/blobs/" + s.digest)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if n, err := io.Copy(io.Discard, res.Body); n != s.size || err != nil {
					t.Errorf("%d bytes of %d, %v", n, s.size, err)
				}
			})
		}
		wg.Wait()
	}
	pull(small, 2)
	before := peak(t, pid)
	pull(large, 2)
	two := peak(t, pid)
	pull(large, 32)
	many := peak(t, pid)
	t.Logf("peak resident: %d MiB after 1 MiB, %d MiB after 256 MiB, %d MiB after 32 clients", before>>20, two>>20, many>>20)
	if many > before+64<<20 {
		t.Errorf("peak resident grew from %d to %d MiB", before>>20, many>>20)
	}
}

// stream is content that exists only while it is read.
type stream struct {
	seed   byte
	size   int64
	digest string
}

func newStream(seed byte, size int64) stream {
	s := stream{seed: seed, size: size}
	h := sha256.New()
	_, _ = io.Copy(h, s.reader())
	s.digest = fmt.Sprintf("sha256:%x", h.Sum(nil))
	return s
}

func (s stream) reader() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{s.seed}), s.size) }

// startProcess builds and starts the program, and returns its process and where it serves.
func startProcess(t *testing.T, upstream string) (pid int, url string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "entrepot")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--data-dir", t.TempDir(), "--upstream", upstream)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	lines.Scan()
	_, rest, ok := strings.Cut(lines.Text(), `"listen":"`)
	address, _, _ := strings.Cut(rest, `"`)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, log)
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		_ = cmd.Process.Signal(os.Interrupt)
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if !ok {
		t.Fatalf("the log begins with %s", lines.Text())
	}
	return cmd.Process.Pid, "http://" + address
}

// peak is the most that a process has had resident, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
