package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// machine is where and when it was measured.
type machine struct {
	Date      string `json:"date"`
	Processor string `json:"processor"`
	CPUs      int    `json:"cpus"`
	Memory    string `json:"memory"`
	System    string `json:"system"`
	Go        string `json:"go"`
}

func thisMachine() machine {
	return machine{
		Date:      time.Now().UTC().Format(time.DateOnly),
		Processor: field("/proc/cpuinfo", "model name"),
		CPUs:      runtime.NumCPU(),
		Memory:    field("/proc/meminfo", "MemTotal"),
		System:    runtime.GOOS + "/" + runtime.GOARCH + " " + firstLine("/proc/sys/kernel/osrelease"),
		Go:        runtime.Version(),
	}
}

func (m machine) String() string {
	return fmt.Sprintf("%s; %d × %s, memory %s; %s; %s", m.Date, m.CPUs, m.Processor, m.Memory, m.System, m.Go)
}

// field finds the first "name : value" of a file such as those in /proc.
func field(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func firstLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}
