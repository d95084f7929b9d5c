package config

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// maxPassword bounds a password file. Access tokens are a few kilobytes; more is the wrong file.
const maxPassword = 64 << 10

// maxSecretFile bounds files of certificates, users and credentials. The certificates of all authorities there are take a fifth of it.
const maxSecretFile = 1 << 20

// maxHtpasswd bounds an htpasswd file. A line has some 80 bytes.
const maxHtpasswd = 4 << 20

// htpasswdHash is what htpasswd -B makes of a password. One that costs more is seconds of a processor at each check.
var htpasswdHash = regexp.MustCompile(`^\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}$`)

// htpasswdProblem says what keeps a text from being an htpasswd file with at least one user, and the remedy. "" is nothing. Nothing
// that may be a password, or a hash of one, is repeated.
func htpasswdProblem(text []byte) string {
	users, n := map[string]bool{}, 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		switch {
		case !ok || name == "":
			return fmt.Sprintf("line %d is not a name, a colon and a bcrypt hash; allowed: lines as htpasswd -B writes them", n)
		case !htpasswdHash.MatchString(hash):
			return fmt.Sprintf("line %d: the password of %s is not hashed by bcrypt at a cost of 4 to 16; allowed: to make it anew by htpasswd -B",
				n, quote(name))
		case users[name]:
			return fmt.Sprintf("line %d: %s is there twice; allowed: once", n, quote(name))
		}
		users[name] = true
	}
	if len(users) == 0 {
		return "it has no user; allowed: to add one by htpasswd -B, or to leave the key out"
	}
	return ""
}

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
