package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/entrepot/entrepot/config"
	"github.com/entrepot/entrepot/proxy/access"
)

func TestPasswordsAreOpenedOnceAFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name, text string) *config.Config {
		t.Helper()
		c := config.Default()
		c.Access.HtpasswdFile = filepath.Join(dir, name)
		if err := os.WriteFile(c.Access.HtpasswdFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return c
	}
	const alice = "alice:$2y$04$abcdefghijklmnopqrstuuMYSTpEoBLdR6dHtWoEHVbG0pFTGLPWq\n"
	none := passwords{log: zap.NewNop()}
	one, err := none.of(at("one", alice))
	again, errAgain := one.of(at("one", alice))
	if err := errors.Join(err, errAgain); err != nil || one.open == nil || again.open != one.open {
		t.Errorf("a file is opened again: %v", err)
	}
	if wrong, err := one.of(at("wrong", "alice:hunter2\n")); err == nil || !strings.Contains(err.Error(), "wrong") ||
		strings.Contains(err.Error(), "hunter2") || wrong.open != one.open {
		t.Errorf("of a wrong file: %v", err)
	}
	two, err := one.of(at("two", alice))
	if err != nil || two.open == nil || two.open == one.open {
		t.Errorf("another file is not opened: %v", err)
	}
	if back, err := two.of(config.Default()); err != nil || back.open != nil {
		t.Errorf("no file: %+v, %v", back, err)
	}
}

// A registry that is not in the file any more is served until the restart: as it was, and not to everybody.
func TestARegistryThatIsTakenAwayStaysAsItWas(t *testing.T) {
	started := loaded(t, "ENTREPOT_REGISTRIES=a.example,b.example", "ENTREPOT_REGISTRIES_A_EXAMPLE_AUTHORIZATION=client",
		"ENTREPOT_REGISTRIES_B_EXAMPLE_EXPOSE=base-*", "ENTREPOT_REGISTRIES_B_EXAMPLE_CREDENTIALS_USERNAME=u",
		"ENTREPOT_REGISTRIES_B_EXAMPLE_CREDENTIALS_PASSWORD=p")
	p := policy(started, loaded(t), nil)
	for _, tt := range []struct {
		registry, repository string
		want                 access.Grant
	}{
		{"a.example", "secret", access.Presented},
		{"b.example", "secret", access.Shown},
		{"b.example", "base-1", access.Everything},
	} {
		if got, err := p.May("", tt.registry, tt.repository); err != nil || got != tt.want {
			t.Errorf("%s of %s: %v, %v; want %v", tt.repository, tt.registry, got, err, tt.want)
		}
	}
}

// The listener asks for certificates, or does not, as when the program started: that clients have to show one can't begin before that.
func TestWhoIsAnonymousGoesByTheListenerThatThereIs(t *testing.T) {
	with, without := loaded(t), loaded(t)
	with.TLS.ClientCAFile = "ca.pem"
	if !policy(without, with, nil).Anonymous {
		t.Error("nobody is let in, and nobody can show a certificate")
	}
	if policy(with, without, nil).Anonymous {
		t.Error("everybody is let in, and certificates are still asked for")
	}
	if policy(with, with, nil).Anonymous || !policy(without, without, nil).Anonymous {
		t.Error("auto is not what it should be")
	}
}
