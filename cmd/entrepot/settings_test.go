package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/entrepot/entrepot/config"
)

func loaded(t *testing.T, environ ...string) *config.Config {
	t.Helper()
	c, err := config.Load("", environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSettingsHoldAtOnceOrNeedARestart(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	var next *config.Config
	s := newSettings(loaded(t), func() (*config.Config, error) { return next, nil }, zap.New(core))
	var told *config.Config
	s.whenRead(func(c *config.Config) { told = c })
	for _, step := range []struct {
		environ string
		want    []string // by the lines of the log
	}{
		{"", []string{"[]"}},
		{"LOG_LEVEL=debug OFFLINE=true", []string{"[offline log.level]"}},
		{"LOG_LEVEL=debug LISTEN=:80 REGISTRIES=a.io CACHE_TAG_TTL=1s", []string{"[offline cache.tag_ttl]", "[listen registries.a.io]"}},
		{"LOG_LEVEL=debug LISTEN=:80 REGISTRIES_DOCKER_IO_EXPOSE=a BANDWIDTH_PER_CLIENT=1MB/s ACCESS_ALLOW_CLIENTS=10.0.0.0/8",
			[]string{"[access.allow_clients cache.tag_ttl registries.docker.io.expose bandwidth.per_client]", "[listen]"}},
		{"CACHE_FILL=whole REGISTRIES_DOCKER_IO_AUTHORIZATION=client",
			[]string{"[log.level access.allow_clients registries.docker.io.authorization registries.docker.io.expose bandwidth.per_client]", "[cache.fill]"}},
		{"CACHE_FILL=whole REGISTRIES_DOCKER_IO_CREDENTIALS_USERNAME=u REGISTRIES_DOCKER_IO_CREDENTIALS_PASSWORD=p",
			[]string{"[registries.docker.io.credentials registries.docker.io.authorization]", "[cache.fill]"}},
	} {
		var environ []string
		for _, variable := range strings.Fields(step.environ) {
			environ = append(environ, "ENTREPOT_"+variable)
		}
		next = loaded(t, environ...)
		if !s.reload() || s.inForce() != next || told != next {
			t.Errorf("%s does not hold", step.environ)
		}
		var got []string
		for _, line := range logs.TakeAll() {
			for _, keys := range line.ContextMap() {
				got = append(got, fmt.Sprint(keys))
			}
		}
		if strings.Join(got, ";") != strings.Join(step.want, ";") {
			t.Errorf("%s: %v, want %v", step.environ, got, step.want)
		}
	}
}

func TestWhatOpensMoreIsToldLast(t *testing.T) {
	s := newSettings(loaded(t), func() (*config.Config, error) { return loaded(t), nil }, zap.NewNop())
	var told []string
	s.afterwards(func(*config.Config) { told = append(told, "logins") })
	s.whenRead(func(*config.Config) { told = append(told, "access") })
	if s.reload(); fmt.Sprint(told) != "[access logins]" {
		t.Errorf("%v", told)
	}
}

func TestWrongSettingsChangeNothing(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	s := newSettings(loaded(t), func() (*config.Config, error) { return nil, errors.Join(errors.New("f:1: a"), errors.New("f:2: b")) }, zap.New(core))
	s.whenRead(func(*config.Config) { t.Error("somebody is told of wrong settings") })
	before := s.inForce()
	if s.reload() || s.inForce() != before {
		t.Error("wrong settings hold")
	}
	lines := logs.TakeAll()
	s.load = func() (*config.Config, error) { return loaded(t, "ENTREPOT_OFFLINE=true"), nil }
	s.unless(func(c *config.Config) error { return fmt.Errorf("offline: %v", c.Offline) })
	s.unless(func(*config.Config) error { panic("it is refused") })
	if s.reload() || s.inForce() != before || fmt.Sprint(logs.TakeAll()[0].ContextMap()["errors"]) != "[offline: true]" {
		t.Error("settings that are refused hold")
	}
	if len(lines) != 1 || lines[0].Level != zapcore.ErrorLevel || fmt.Sprint(lines[0].ContextMap()["errors"]) != "[f:1: a f:2: b]" {
		t.Errorf("%+v", lines)
	}
}

func TestEveryKeyThatHoldsAtOnceIsOne(t *testing.T) {
	for _, path := range atOnce {
		found := false
		for _, f := range config.Fields() {
			found = found || (config.Change{Field: f.Key}).Within(path)
		}
		if !found {
			t.Errorf("there is no key %s", path)
		}
	}
}

func TestHangupReadsTheFileAgain(t *testing.T) {
	r := start(t, "http://127.0.0.1:1", nil)
	file := filepath.Join(t.TempDir(), "f.yaml")
	read := func(text string) func() (*config.Config, error) {
		return func() (*config.Config, error) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				return nil, err
			}
			return config.Load(file, nil)
		}
	}
	if line := r.reload(read("cache: {tag_ttl: 1h}\nlisten: x\n")); !strings.Contains(line, file+":2: listen") || !strings.Contains(line, `"level":"error"`) {
		t.Error(line)
	}
	if line := r.reload(read("cache: {tag_ttl: 1h}\n")); !strings.Contains(line, `"changed":["cache.tag_ttl"]`) {
		t.Error(line)
	}
	if line := <-r.said; !strings.Contains(line, `"listen"`) || !strings.Contains(line, "restart") { // the tests' own is another
		t.Error(line)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestReloadsAreCounted(t *testing.T) {
	r := start(t, "http://127.0.0.1:1", nil)
	wrong := func() (*config.Config, error) { return nil, errors.New("f:1: wrong") }
	r.reload(wrong)
	r.reload(wrong) // by now the one before is counted
	if _, metrics := get(t, r.admin+"/metrics"); !strings.Contains(metrics, `entrepot_config_reloads_total{outcome="ok"} 0`) ||
		strings.Contains(metrics, `entrepot_config_reloads_total{outcome="failed"} 0`) {
		t.Error(metrics)
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// A signal that comes while the program starts is obeyed when it has.
func TestHangupDuringTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipe") // it is being read for as long as the test wants
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	said, done := make(logLines, 100), make(chan error, 1)
	cmd := program(nil, io.Discard, said)
	cmd.SetArgs([]string{"serve", "--config", file, "--listen", "127.0.0.1:0", "--admin-listen", "off", "--data-dir", t.TempDir()})
	go func() { done <- cmd.ExecuteContext(ctx) }()
	give := func(text string, meanwhile func() error) {
		t.Helper()
		pipe, err := os.OpenFile(file, os.O_WRONLY, 0) // when it is opened for reading too
		if err == nil {
			_, errWrite := io.WriteString(pipe, text+"\n")
			err = errors.Join(meanwhile(), errWrite, pipe.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	hear := func(what string) {
		for !strings.Contains(<-said, what) {
		}
	}
	give("offline: false", func() error { return syscall.Kill(os.Getpid(), syscall.SIGHUP) })
	hear(`"serving"`) // by now the pipe is not being read any more
	give("offline: true", func() error { return nil })
	hear(`"changed":["offline"]`)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
