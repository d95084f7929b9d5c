package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/entrepot/entrepot/upstream/watched"
)

// maxPassword bounds a password: access tokens are a few kilobytes; more is the wrong file.
const maxPassword = 64 << 10

// File is a user whose password is in a file, without the end of its line. The file is read again when it changes. One that
// is missing, or empty, leaves the password before it in use for a minute.
func File(username, path string) Source {
	return remember(passwordFile{username, watched.New(path, maxPassword)})
}

type passwordFile struct {
	username string
	file     *watched.File
}

func (p passwordFile) version() int {
	_, version, _ := p.file.Read()
	return version
}

func (p passwordFile) look(context.Context) (found, error) {
	content, _, err := p.file.Read()
	if err != nil {
		return found{}, gone{fmt.Errorf("password file: %w", err)}
	}
	password, err := passwordOf(string(content))
	if err != nil {
		return found{}, gone{fmt.Errorf("password file %s: %w", p.file.Path(), err)}
	}
	return found{login: Login{Username: p.username, Password: password}}, nil
}

// passwordOf returns what a text holds besides the end of its line, if that can be a password. It is no judge of its
// own: what it refuses is the wrong file, or the message of a program that should have failed.
func passwordOf(text string) (string, error) {
	password := strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
	switch {
	case password == "":
		return "", errors.New("empty")
	case len(password) > maxPassword:
		return "", fmt.Errorf("a password of more than %d bytes", maxPassword)
	case strings.ContainsFunc(password, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "", errors.New("not a password: it has several lines, or control characters")
	}
	return password, nil
}
