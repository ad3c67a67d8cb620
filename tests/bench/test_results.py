"""What the verdicts say. Run: python3 -m unittest discover -s tests/bench"""

import unittest

from results import CANDIDATE, Results
from servers import Contender

OLD = Contender("etcd-3.5.1", "old", "etcd", "/bin/true", False)
NEW = Contender("etcd-3.7.1", "new", "etcd", "/bin/true", False)
SECURED = Contender("etcd-3.7.1-secured", "secured", "etcd", "/bin/true", True)
OURS = Contender(CANDIDATE, "ours", "keygate", "/bin/true", True)


def report(rate, errors=0):
    return {
        "ops_per_second": rate, "p50": 1, "p99": 2, "server_cpu_us_per_op": 3, "client_cpu_us_per_op": 1,
        "server_rss_mib": 10, "errors": errors, "first_error": "wrong answer" if errors else "",
    }


class Verdicts(unittest.TestCase):
    def results(self, rates):
        results = Results([OLD, NEW, SECURED, OURS])
        for contender, all_ in rates.items():
            for rate in all_:
                results.add("put-100", contender.id, report(rate))
        return results

    def verdict(self, rates):
        return self.results(rates).verdicts()[0]

    def test_the_faster_plain_etcd_is_the_peer_even_when_a_secured_one_is_faster(self):
        verdict = self.verdict({OLD: [100], NEW: [80], SECURED: [900], OURS: [131]})
        self.assertEqual((verdict.peer, verdict.word), ("etcd-3.5.1", "PASS"))
        self.assertAlmostEqual(verdict.ratio, 1.31)

    def test_below_the_bar_is_a_miss(self):
        self.assertEqual(self.verdict({OLD: [100], NEW: [80], OURS: [129]}).word, "MISS")

    def test_medians_are_compared_not_best_rounds(self):
        verdict = self.verdict({OLD: [100, 100, 900], NEW: [1, 1, 1], OURS: [140, 140, 1]})
        self.assertAlmostEqual(verdict.ratio, 1.4)

    def test_without_one_of_the_plain_etcds_no_bar_is_judged(self):
        self.assertEqual(self.verdict({OLD: [100], OURS: [500]}).word, "not measured")
        self.assertEqual(self.verdict({OLD: [100], NEW: [80]}).word, "not measured")

    def test_a_peer_that_is_not_installed_is_not_forgotten(self):
        results = Results([OLD, OURS])
        results.add("put-100", OLD.id, report(100))
        results.add("put-100", OURS.id, report(900))
        self.assertEqual(results.verdicts()[0].word, "not measured")

    def test_memory_must_not_exceed_the_smaller_plain_etcd_by_more_than_its_bar(self):
        for mine, word in ((120, "PASS"), (121, "MISS")):
            results = Results([OLD, NEW, OURS])
            for contender, value in ((OLD, 150), (NEW, 100), (OURS, mine)):
                results.add_footprint(contender.id, "rss_mib", value)
            self.assertEqual(results.verdicts()[0].word, word)

    def test_errors_in_an_answer_are_failures_of_the_run(self):
        results = self.results({OLD: [100]})
        results.add("put-100", OURS.id, report(1000, errors=2))
        self.assertEqual(len(results.failures), 1)


if __name__ == "__main__":
    unittest.main()
