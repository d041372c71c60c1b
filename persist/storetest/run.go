package storetest

import "testing"

// Run executes the suite. Every test gets a store of its own.
func Run(t *testing.T, open Opener) {
	tests := []struct {
		name string
		f    func(r *rig)
	}{
		{"EmptyStore", testEmptyStore},
		{"EmptyGroupSettles", testEmptyGroup},
		{"UnknownQueue", testUnknownQueue},
		{"SettlesToOwner", testOwner},
		{"BatchUsedAgain", testBatchAgain},
		{"SettledIsDurable", testSettledIsDurable},
		{"GroupIsWhole", testGroupIsWhole},
		{"CancelledSettles", testCancelled},
		{"PartlyCancelledWaits", testPartlyCancelled},
		{"DequeueOfWritten", testDequeueWritten},
		{"DequeueTwice", testDequeueTwice},
		{"SequenceDense", testSequence},
		{"SequenceOverRestart", testSequenceRestart},
		{"Release", testRelease},
		{"Subscriptions", testSubscriptions},
		{"Inbound", testInbound},
		{"SessionReplaced", testSessionReplaced},
		{"DeleteSession", testDeleteSession},
		{"DeleteSessionPending", testDeleteSessionPending},
		{"DeleteSessionDeep", testDeleteSessionDeep},
		{"Retained", testRetained},
		{"RetainedCoalesce", testRetainedCoalesce},
		{"MessageFields", testMessageFields},
		{"MessageExpiry", testExpiry},
		{"LongMessages", testLongMessages},
		{"LongNames", testLongNames},
		{"SharedMessage", testShared},
		{"FetchLimits", testFetchLimits},
		{"FetchNothing", testFetchNothing},
		{"FetchQoS2Waits", testFetchQoS2},
		{"Refusals", testRefusals},
		{"FetchSeesPending", testFetchPending},
		{"FetchManyQueues", testFetchMany},
		{"Wills", testWills},
		{"SharedFlag", testSharedFlag},
		{"QueueRejects", testReject},
		{"QueueDropsNewest", testDropNewest},
		{"QueueDropsOldest", testDropOldest},
		{"QueueKeepsWhatClientHas", testDropOldestKeeps},
		{"QueueAge", testAge},
		{"Priority", testPriority},
		{"Boot", testBoot},
		{"IDsNotUsedAgain", testIDs},
		{"CloseCommits", testClose},
		{"Stats", testStats},
		{"Concurrent", testConcurrent},
	}
	for _, x := range tests {
		t.Run(x.name, func(t *testing.T) {
			r := newRig(t, open)
			x.f(r)
			r.finish()
		})
	}
	runRandom(t, open)
}
