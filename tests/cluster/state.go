// What a running cluster leaves on disk, so that any later command finds its processes again:
// process ids together with start times, so that a reused id is never mistaken for ours.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type phase string

const (
	phaseStarting phase = "starting"
	phaseReady    phase = "ready"
	phaseFailed   phase = "failed"
)

// process identifies a process beyond the life of its id.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot, field 22 of /proc/PID/stat
	Boot  string `json:"boot"`  // the kernel's boot id
}

type partState struct {
	process
	Restarts int `json:"restarts"`
}

type state struct {
	Phase      phase                `json:"phase"`
	Message    string               `json:"message,omitempty"` // what is waited for, or what failed
	Supervisor process              `json:"supervisor"`
	Parts      map[string]partState `json:"parts"`
	Port       int                  `json:"port"`
	InNetns    bool                 `json:"inNetns"`
	WantReal   bool                 `json:"wantReal"`
	RealNode   bool                 `json:"realNode"`
	Note       string               `json:"note,omitempty"` // why there is no real node, if one was wanted
}

// readState returns nil without an error when there is no state.
func readState(file string) (*state, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s is not readable (%w); stop what it describes by hand and delete it", file, err)
	}
	return &s, nil
}

func writeState(file string, s *state) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return writeFileAtomically(file, append(data, '\n'), 0o644)
}

func writeFileAtomically(file string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	temporary := file + ".new"
	if err := os.WriteFile(temporary, data, mode); err != nil {
		return err
	}
	return os.Rename(temporary, file)
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

// identify reads a live process's identity; ok is false when there is none (or only a zombie).
func identify(pid int) (process, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	start, zombie, err := parseStat(data)
	if err != nil || zombie {
		return process{}, false
	}
	return process{PID: pid, Start: start, Boot: bootID()}, true
}

// parseStat takes the start time out of /proc/PID/stat. The second field is the program's name in
// brackets and may itself hold spaces and brackets, so fields are counted from the last bracket.
func parseStat(stat []byte) (start uint64, zombie bool, err error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false, errors.New("no name in brackets")
	}
	fields := strings.Fields(string(stat[end+1:]))
	const startIndex = 22 - 3 // fields counts from the third one, the process's state
	if len(fields) <= startIndex {
		return 0, false, fmt.Errorf("only %d fields", len(fields))
	}
	start, err = strconv.ParseUint(fields[startIndex], 10, 64)
	return start, fields[0] == "Z", err
}

func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	now, ok := identify(p.PID)
	return ok && now == p
}

// signal reaches the process only while it is still the one that was recorded.
func (p process) signal(s syscall.Signal) {
	if p.alive() {
		_ = syscall.Kill(p.PID, s)
	}
}

func (p process) waitGone(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); p.alive(); {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}
