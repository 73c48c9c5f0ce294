"""A hub that never has a task to lease."""


class QuietListener:
    def assign(self, store, now):
        pass

    def has_leases(self):
        return False

    def grant(self):
        pass

    def published(self):
        pass

    def committed(self, changes):
        pass

    def rolled_back(self):
        pass
