from tests.judge.soak import IN_FLIGHT, soak


def test_faults_and_a_kill_change_nothing_in_the_pairs(tmp_path):
    outcome = soak(tmp_path, histories=400, faults=0.02, kills=1)
    assert outcome["answered_again"] <= IN_FLIGHT
