package config

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxPassword bounds a password file. Access tokens are a few kilobytes; more is the wrong file.
const maxPassword = 64 << 10

// maxSecretFile bounds files of certificates, users and credentials. The certificates of all authorities there are take a fifth of it.
const maxSecretFile = 1 << 20

// passwordFile reports what is wrong with the password file of a login, if it has one.
func (l Login) passwordFile() error {
	if l.PasswordFile == "" {
		return nil
	}
	text, err := readRegular(l.PasswordFile, maxPassword)
	if err != nil {
		return fmt.Errorf("password file: %w", err)
	}
	if strings.TrimRight(string(text), "\r\n") == "" {
		return fmt.Errorf("password file: %s is empty", l.PasswordFile)
	}
	return nil
}

// readRegular reads a file of at most limit bytes that can be read again: a pipe or a device could block or never end.
func readRegular(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return readBounded(path, limit)
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %s", path, Size(limit))
	}
	return data, nil
}
