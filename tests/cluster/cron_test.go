// Tests of what `cron` answers. That it survives a search without an end, the test that compares shows.
package main

import (
	"strings"
	"testing"
	"time"
)

func TestCronNamesTheInstantsThatKubernetesTakes(t *testing.T) {
	questions, answers := make(chan string), make(chan string)
	go answerCron(2, questions, answers)
	defer close(questions)
	for question, want := range map[string]string{
		"30 2 * * *|Europe/Berlin|2026-03-28T12:00:00Z": "2026-03-30T00:30:00Z 2026-03-31T00:30:00Z",
		"0 0 29 2 *|UTC|2092-06-01T00:00:00.5Z":         "2096-02-29T00:00:00Z none",
		"0 0 30 2 *|UTC|2026-01-01T00:00:00Z":           "none",
		"@hourly|Asia/Kolkata|2026-01-01T00:00:00Z":     "2026-01-01T00:30:00Z 2026-01-01T01:30:00Z",
		"60 * * * *|UTC|2026-01-01T00:00:00Z":           "error",
		"0 0 | * *|UTC|2026-01-01T00:00:00Z":            "error",
		"TZ=0|UTC|2026-01-01T00:00:00Z":                 "error",
		"|UTC|2026-01-01T00:00:00Z":                     "error",
	} {
		questions <- question
		var out strings.Builder
		if ended := writeCronAnswer(&out, answers); !ended || out.String() != want {
			t.Errorf("%s: %q, want %q", question, out.String(), want)
		}
	}
}

func TestASearchWithoutAnEndIsToldAsSuch(t *testing.T) {
	// given a search that found an instant and goes on
	answers := make(chan string)
	stop := make(chan struct{})
	go func() {
		answers <- "2026-01-01T00:00:00Z"
		for {
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	defer close(stop)
	// when its answer is written
	var out strings.Builder
	begin := processorTime()
	ended := writeCronAnswer(&out, answers)
	// then it ends by the processor time that was used
	if used := processorTime() - begin; ended || used < cronLimit || used > 60*time.Second {
		t.Errorf("ended: %t, after %s of processor time", ended, used)
	}
	if want := "2026-01-01T00:00:00Z endless"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
