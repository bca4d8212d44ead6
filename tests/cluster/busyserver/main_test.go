// The server's answers, without a pod around it.
package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func ask(t *testing.T, handler http.Handler, method, path string) int {
	t.Helper()
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(method, path, nil))
	return recorder.Code
}

func TestItIsBusyAndIdleAsTold(t *testing.T) {
	var annotated []bool
	s := &server{unreadyIfBusy: true, annotate: func(busy bool) error {
		annotated = append(annotated, busy)
		return nil
	}}
	h := s.handler()
	for _, step := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/busy", 503}, {"GET", "/readyz", 200}, {"POST", "/busy", 200}, {"GET", "/busy", 200},
		{"GET", "/readyz", 503}, {"POST", "/idle", 200}, {"GET", "/busy", 503}, {"POST", "/exit?code=x", 400},
	} {
		if got := ask(t, h, step.method, step.path); got != step.want {
			t.Errorf("%s %s: %d, want %d", step.method, step.path, got, step.want)
		}
	}
	if len(annotated) != 2 || !annotated[0] || annotated[1] {
		t.Errorf("annotated %v", annotated)
	}
}

func TestItTurnsIdleByItself(t *testing.T) {
	s := &server{idleAfter: 20 * time.Millisecond}
	if err := s.set(true); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); s.isBusy(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("still busy")
		}
	}
}
