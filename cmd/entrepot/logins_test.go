package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/upstream/credential"
)

func TestLoginComesFromWhereTheConfigurationSays(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	write("docker-credential-own", "#!/bin/sh\nread server\necho '{\"Username\": \"helped\", \"Secret\": \"'$server'\"}'\n")
	l := newLogin("a.example", config.Login{Username: "u", Password: config.NewSecret("p")})
	l.LogTo(zap.NewNop())
	for _, step := range []struct {
		given          config.Login
		name, password string
	}{
		{config.Login{Username: "u", Password: config.NewSecret("p")}, "u", "p"},
		{config.Login{Username: "f", PasswordFile: write("password", "from file\n")}, "f", "from file"},
		{config.Login{DockerConfig: write("config.json", `{"auths": {"a.example": {"username": "d", "password": "docker"}}}`)}, "d", "docker"},
		{config.Login{Helper: "own"}, "helped", "a.example"},
		{config.Login{Username: "e", Exec: []string{"echo", "printed"}}, "e", "printed"},
		{config.Login{Exec: []string{"echo", `{"username": "j", "password": "json"}`}}, "j", "json"},
	} {
		if err := l.obey(step.given); err != nil {
			t.Error(err)
		}
		if got, err := l.Get(t.Context()); err != nil || got.Username != step.name || got.Password != step.password {
			t.Errorf("%+v: %s %s, %v", step.given, got.Username, got.Password, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.obey(config.Login{Exec: []string{"false"}}); err != nil {
		t.Error(err)
	}
	if got, err := l.Get(t.Context()); err != nil || got.Username != "j" {
		t.Errorf("after the end: %s, %v", got.Username, err)
	}
}

// TestWhoAsksWhileALoginIsExchangedGetsTheOther has a command run when the login is exchanged, which ends it.
func TestWhoAsksWhileALoginIsExchangedGetsTheOther(t *testing.T) {
	running := filepath.Join(t.TempDir(), "running")
	if err := syscall.Mkfifo(running, 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLogin("a.example", config.Login{Username: "u", Exec: []string{"sh", "-c", `echo >"$0"; exec sleep 1000`, running}})
	type answer struct {
		login credential.Login
		err   error
	}
	answers := make(chan answer)
	for range 3 {
		go func() {
			got, err := l.Get(t.Context())
			answers <- answer{got, err}
		}()
	}
	if _, err := os.ReadFile(running); err != nil { // it waits for the command to open it
		t.Fatal(err)
	}
	if err := l.obey(config.Login{Username: "other", Password: config.NewSecret("p")}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if a := <-answers; a.err != nil || a.login.Username != "other" {
			t.Errorf("%s, %v", a.login.Username, a.err)
		}
	}
	if err := errors.Join(l.obey(config.Login{Exec: []string{"false"}}), l.Close()); err != nil {
		t.Error(err)
	}
	if _, err := l.Get(t.Context()); err == nil {
		t.Error("a command that fails has a login")
	}
}
