"""When a lease ends, told a time."""

from multihost.core.lease import GRACE_S, LEASE_S, LeaseTable, must_stop_at


def test_a_silent_session_loses_its_leases_after_the_lease():
    table = LeaseTable()
    table.renew(1, 100.0)
    assert 1 in table
    assert table.next_deadline() == 100.0 + LEASE_S
    assert table.expired(100.0 + LEASE_S - 0.1) == []
    assert table.expired(100.0 + LEASE_S) == [1]
    assert 1 not in table
    assert table.expired(1e9) == []


def test_a_heartbeat_renews_the_whole_lease():
    table = LeaseTable()
    table.renew(1, 0.0)
    table.renew(1, 20.0)
    assert table.expired(LEASE_S) == []
    assert table.next_deadline() == 20.0 + LEASE_S


def test_a_closed_connection_shortens_the_lease_to_the_grace():
    table = LeaseTable()
    table.renew(1, 0.0)
    table.disconnect(1, 10.0)
    assert table.next_deadline() == 10.0 + GRACE_S
    table.disconnect(1, 11.0)
    assert table.next_deadline() == 10.0 + GRACE_S


def test_a_closed_connection_never_lengthens_a_lease():
    table = LeaseTable()
    table.renew(1, 0.0)
    table.disconnect(1, LEASE_S - 0.5)
    assert table.next_deadline() == LEASE_S


def test_who_comes_back_in_time_has_a_whole_lease_again():
    table = LeaseTable()
    table.renew(1, 0.0)
    table.disconnect(1, 1.0)
    table.renew(1, 2.0)
    assert table.expired(2.0 + LEASE_S - 0.1) == []


def test_the_servers_own_pause_costs_nobody_a_lease():
    table = LeaseTable()
    table.renew(1, 0.0)
    table.renew(2, 5.0)
    table.extend(60.0)
    assert table.expired(LEASE_S + 59.0) == []
    assert table.expired(LEASE_S + 60.0) == [1]


def test_a_goodbye_and_a_stranger_leave_nothing():
    table = LeaseTable()
    table.renew(1, 0.0)
    table.end(1)
    table.end(2)
    table.disconnect(3, 0.0)
    assert table.next_deadline() is None


def test_a_worker_stops_before_the_server_gives_its_tasks_away():
    assert must_stop_at(100.0) < 100.0 + LEASE_S
    assert must_stop_at(100.0, lease_s=4.0) == 103.0
